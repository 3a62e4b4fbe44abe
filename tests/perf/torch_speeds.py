"""Speeds of PyTorch on the GPU that is here, to compare with `gpu-check`'s: ceilings, and models of the same shapes.

Usage: torch_speeds.py [--shapes llama-1b,llama-8b] [--device cuda|cpu] [--tiny]

Prints one JSON object: what memory reads (GB/s) and what a product of bf16 reaches (TFLOP/s, 8192 on each side), and for
each shape, with random weights in bf16, tokens per second of a prompt of 2048 and of decoding 128 tokens behind 1024 with
a temperature, by torch.compile with CUDA graphs; and milliseconds of attention to a prompt of 8192. Medians of 3.
--tiny takes a small shape, and --device cpu compiles nothing: to see that the program works. Needs the package torch.
"""

import argparse
import json
import statistics
import time

import torch
from torch.nn import functional

# Width, layers, heads, key heads, elements of a head, feed-forward channels, vocabulary.
SHAPES = {
    "llama-1b": (2048, 16, 32, 8, 64, 8192, 128256),
    "llama-8b": (4096, 32, 32, 8, 128, 14336, 128256),
    "tiny": (64, 2, 4, 2, 16, 128, 256),
}
PREFILL, DEPTH, DECODE, ROUNDS = 2048, 1024, 128, 3
TEMPERATURE = 0.7


def now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def median(device: str, work) -> float:
    """Seconds of the middle one of three runs, after one that does not count."""
    seconds = []
    for _ in range(ROUNDS + 1):
        begin = now(device)
        work()
        seconds.append(now(device) - begin)
    return statistics.median(seconds[1:])


class Model:
    """A Llama with random weights and a cache of fixed size."""

    def __init__(self, shape, device: str, context: int):
        width, layers, self.heads, self.kv_heads, self.head, channels, vocab = shape
        kind = {"device": device, "dtype": torch.bfloat16}
        random = lambda *size: torch.randn(*size, **kind) * 0.02
        rows = (self.heads + 2 * self.kv_heads) * self.head
        self.layers = [
            (random(rows, width), random(width, self.heads * self.head), random(2 * channels, width), random(width, channels))
            for _ in range(layers)
        ]
        self.embedding, self.scale = random(vocab, width), torch.ones(width, **kind)
        self.cache = [torch.zeros(2, self.kv_heads, context, self.head, **kind) for _ in range(layers)]
        half = torch.arange(0, self.head, 2, device=device) / self.head
        angles = torch.outer(torch.arange(context, device=device), 500000.0**-half)
        self.cos, self.sin = angles.cos(), angles.sin()

    def turn(self, x, positions):
        a, b = x.float().chunk(2, -1)
        cos, sin = self.cos[positions], self.sin[positions]
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x.dtype)

    def norm(self, x):
        return functional.rms_norm(x, (x.shape[-1],), self.scale, 1e-5)

    def step(self, ids, positions, mask):
        """The next token's scores after the last id; `mask` is None where positions begin with 0."""
        x = self.embedding[ids]
        sizes = [self.heads * self.head, self.kv_heads * self.head, self.kv_heads * self.head]
        for (qkv, out, up, down), cache in zip(self.layers, self.cache):
            q, k, v = functional.linear(self.norm(x), qkv).split(sizes, -1)
            q, k, v = (part.view(len(ids), -1, self.head).transpose(0, 1) for part in (q, k, v))
            q, k = self.turn(q, positions), self.turn(k, positions)
            cache[0].index_copy_(1, positions, k)
            cache[1].index_copy_(1, positions, v)
            if mask is not None:
                k, v = cache[0], cache[1]
            seen = functional.scaled_dot_product_attention(
                q[None], k[None], v[None], attn_mask=mask, is_causal=mask is None, enable_gqa=True
            )
            x = x + functional.linear(seen[0].transpose(0, 1).reshape(len(ids), -1), out)
            gate, value = functional.linear(self.norm(x), up).chunk(2, -1)
            x = x + functional.linear(functional.silu(gate) * value, down)
        logits = functional.linear(self.norm(x[-1:]), self.embedding).float() / TEMPERATURE
        noise = torch.empty_like(logits).exponential_()
        return (torch.softmax(logits, -1) / noise).argmax(-1)


@torch.inference_mode()
def measure(shape, device: str, prefill: int, depth: int) -> dict:
    context = max(prefill, depth + DECODE)
    model = Model(shape, device, context)
    compiled = (lambda f, **how: torch.compile(f, fullgraph=True, **how)) if device == "cuda" else (lambda f, **_: f)
    prompt = torch.randint(0, shape[-1], (prefill,), device=device)
    places = torch.arange(context, device=device)
    whole = compiled(lambda ids: model.step(ids, places[:prefill], None))
    one = compiled(lambda ids, at: model.step(ids, at, (places <= at)[None, None, None]), mode="reduce-overhead")

    def decode():
        token = prompt[:1]
        for i in range(DECODE):
            token = one(token.clone(), places[depth + i : depth + i + 1])

    begin = now(device)
    decode()
    first = now(device) - begin
    return {
        "prefill_tok_s": prefill / median(device, lambda: whole(prompt)),
        "decode_tok_s": DECODE / median(device, decode),
        "compile_s": first,
    }


@torch.inference_mode()
def ceilings(device: str, size: int, side: int) -> dict:
    data = torch.zeros(size, dtype=torch.uint8, device=device).view(torch.int64)
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    return {
        "read_gb_s": size / median(device, data.max) / 1e9,
        "product_tflop_s": 2 * side**3 / median(device, lambda: a @ b) / 1e12,
    }


@torch.inference_mode()
def attention(shape, device: str, tokens: int) -> float:
    _, _, heads, kv_heads, head, *_ = shape
    q, k, v = (torch.randn(1, h, tokens, head, device=device, dtype=torch.bfloat16) for h in (heads, kv_heads, kv_heads))
    work = lambda: functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return 1e3 * median(device, work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shapes", default="llama-1b,llama-8b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    names = ["tiny"] if args.tiny else args.shapes.split(",")
    size, side, prefill, depth, long = (1 << 20, 64, 32, 16, 64) if args.tiny else (1 << 33, 8192, PREFILL, DEPTH, 8192)
    found = {"torch": torch.__version__, **ceilings(args.device, size, side), "shapes": {}}
    for name in names:
        speeds = measure(SHAPES[name], args.device, prefill, depth)
        speeds["attention_ms"] = attention(SHAPES[name], args.device, long)
        found["shapes"][name] = speeds
    print(json.dumps(found, indent=1))


main()
