"""Write a tiny random Qwen3 with 8 experts (bf16): `tiny_moe.py TOKENIZER DIR`. Runs under the node environment."""

from __future__ import annotations

import sys

import torch
from transformers import AutoTokenizer, Qwen3MoeConfig, Qwen3MoeForCausalLM
from transformers.utils import logging

if __name__ == "__main__":
    logging.disable_progress_bar()
    torch.manual_seed(2)
    tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
    tokenizer.save_pretrained(sys.argv[2])
    config = Qwen3MoeConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=1024,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        tie_word_embeddings=True,
        num_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=128,
        decoder_sparse_step=1,
        norm_topk_prob=True,
    )
    Qwen3MoeForCausalLM(config).to(torch.bfloat16).save_pretrained(sys.argv[2])
