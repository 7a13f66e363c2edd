"""Write a tiny random Qwen2 (bf16, 1.3 M parameters) with tokenizer and chat template: `tiny_qwen2.py DIR`.

Runs under the node environment (torch, transformers, tokenizers, vLLM). The same bytes every time: the weights are
seeded. DIR/.start makes vLLM start sooner, in half of the CPU time. For VLLM_CACHE_ROOT there is what vLLM asks
of the model's class, in a process that imports vLLM once more, in every new home. For PYTHONPATH there is rarer garbage
collection; with FORK_ENGINE=1 the processes of an engine are forks of its server, and import nothing.
The sizes are small, but not too small for vLLM's CPU attention: a head dimension of 16 passes /health and dies at the
first token.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from transformers.utils import logging

SEED = 2
END_OF_TEXT, START_OF_TURN, END_OF_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SENTENCE = "You are a helpful assistant. The quick brown fox jumps over the lazy dog."
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer: any text can be encoded, the sentence in few tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=[END_OF_TEXT, START_OF_TURN, END_OF_TURN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator([SENTENCE] * 10, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END_OF_TURN, pad_token=END_OF_TEXT)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    torch.manual_seed(SEED)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        tie_word_embeddings=True,
    )
    return Qwen2ForCausalLM(config).to(torch.bfloat16)


AT_START = """\
import gc, os, sys

gc.set_threshold(100_000, 50, 50)
if os.environ.get("FORK_ENGINE") and sys.orig_argv[1:2] and sys.orig_argv[1].endswith("/vllm"):
    import multiprocessing

    of_method = multiprocessing.get_context

    def get_context(method=None):
        return of_method("fork" if sys._getframe(1).f_code.co_name == "get_mp_context" else method)

    multiprocessing.get_context = get_context
"""
"""On CPU, vLLM sets `spawn` whatever it is asked for. Forked API servers would share their metrics."""


def shorten_starts(place: Path) -> None:
    """Have vLLM keep what it asks of the model's class, and Python look for garbage less often while it imports."""
    place.mkdir()
    (place / "sitecustomize.py").write_text(AT_START)
    os.environ["VLLM_CACHE_ROOT"] = str(place)
    from vllm.model_executor.models import ModelRegistry

    ModelRegistry.models["Qwen2ForCausalLM"].inspect_model_cls()


if __name__ == "__main__":
    logging.disable_progress_bar()
    trained = train_tokenizer()
    trained.save_pretrained(sys.argv[1])
    make_model(trained).save_pretrained(sys.argv[1])
    shorten_starts(Path(sys.argv[1], ".start"))
