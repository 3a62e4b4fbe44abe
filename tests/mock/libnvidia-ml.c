// A fake NVML: one device at 0000:00:00.0, whose counter grows by 1.5 J at each reading.

#include <stdint.h>
#include <string.h>

static uint64_t millijoules;

int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **device) {
    *device = &millijoules;
    return strcmp(bus, "0000:00:00.0") ? 6 : 0;
}
int nvmlDeviceGetTotalEnergyConsumption(void *device, uint64_t *energy) {
    *energy = millijoules += 1500;
    return 0;
}
