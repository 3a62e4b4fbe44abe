"""Speeds of OpenVINO GenAI on a checkpoint, for `cargo xtask peers --openvino PYTHON`.

Usage: openvino_speeds.py CHECKPOINT FORMAT FOLDER THREADS PREFILL DECODE DEPTH

FORMAT is int4, int8 or fp16; the converted model is kept in FOLDER. Prints one JSON object: tokens per second of a
prefill and of decoding, of decoding behind DEPTH tokens (null where that is 0), and seconds from the start of this
program to the first token. Needs the packages openvino-genai, openvino-tokenizers, optimum-intel, nncf and torch.
"""

import time

START = time.time()

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino
import openvino_genai

# What comes closest to the formats of llama.cpp beside it.
OPTIONS = {"int4": ["--sym", "--group-size", "128", "--ratio", "1.0"], "int8": [], "fp16": []}
# Ids of prompts begin here: those below may be control tokens.
FIRST_ID = 1000


def convert(checkpoint: Path, form: str, folder: Path) -> None:
    source = folder.with_name(folder.name + "-source")
    source.mkdir(parents=True, exist_ok=True)
    for file in checkpoint.iterdir():
        link = source / file.name
        if not link.exists():
            link.symlink_to(file.resolve())
    (source / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    command = [str(Path(sys.executable).with_name("optimum-cli")), "export", "openvino", "-m", str(source)]
    command += ["--task", "text-generation-with-past", "--weight-format", form, *OPTIONS[form], str(folder)]
    subprocess.run(command, check=True, stdout=sys.stderr)


def main() -> None:
    checkpoint, form, folder = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    threads, prefill, decode, depth = map(int, sys.argv[4:8])
    begin = START
    if not (folder / "openvino_model.xml").exists():
        convert(checkpoint, form, folder)
        begin = time.time()
    pipe = openvino_genai.LLMPipeline(str(folder), "CPU", INFERENCE_NUM_THREADS=threads)
    random = np.random.default_rng(1)

    def run(tokens: int, more: int):
        # Other ids each time, or what is cached of the last prompt would be taken.
        ids = random.integers(FIRST_ID, 100 * FIRST_ID, (1, tokens), dtype=np.int64)
        inputs = openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
        return pipe.generate(inputs, max_new_tokens=more, ignore_eos=True, do_sample=False).perf_metrics

    run(16, 1)
    first = time.time() - begin
    run(prefill, 2)
    measured = run(prefill, decode)
    deep = run(depth, decode) if depth else None
    print(json.dumps({
        "prefill_tok_s": 1000 * prefill / measured.get_ttft().mean,
        "decode_tok_s": 1000 / measured.get_tpot().mean,
        "decode_at_depth_tok_s": 1000 / deep.get_tpot().mean if deep else None,
        "start_to_first_token_s": first,
    }))


main()
