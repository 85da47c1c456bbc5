"""The config.json of the paper's thirteen checkpoints, as published, and Table 1 of the paper."""

# name -> (d, heads, layers)
TABLE_1 = {
    "albert-base-v2": (768, 12, 12),
    "albert-large-v2": (1024, 16, 24),
    "albert-xlarge-v2": (2048, 16, 24),
    "albert-xxlarge-v2": (4096, 64, 12),
    "bert-base-uncased": (768, 12, 12),
    "bert-large-uncased": (1024, 16, 24),
    "gpt2": (768, 12, 12),
    "gpt2-medium": (1024, 16, 24),
    "gpt2-large": (1280, 20, 36),
    "gpt2-xl": (1600, 25, 48),
    "gpt-neo-125m": (768, 12, 12),
    "gpt-neo-1.3B": (2048, 16, 24),
    "gpt-neo-2.7B": (2560, 20, 32),
}


def _albert(d, heads, layers, inner):
    return {
        "architectures": ["AlbertForMaskedLM"],
        "attention_probs_dropout_prob": 0,
        "bos_token_id": 2,
        "classifier_dropout_prob": 0.1,
        "down_scale_factor": 1,
        "embedding_size": 128,
        "eos_token_id": 3,
        "gap_size": 0,
        "hidden_act": "gelu_new",
        "hidden_dropout_prob": 0,
        "hidden_size": d,
        "initializer_range": 0.02,
        "inner_group_num": 1,
        "intermediate_size": inner,
        "layer_norm_eps": 1e-12,
        "layers_to_keep": [],
        "max_position_embeddings": 512,
        "model_type": "albert",
        "net_structure_type": 0,
        "num_attention_heads": heads,
        "num_hidden_groups": 1,
        "num_hidden_layers": layers,
        "num_memory_blocks": 0,
        "pad_token_id": 0,
        "type_vocab_size": 2,
        "vocab_size": 30000,
    }


def _bert(d, heads, layers):
    return {
        "architectures": ["BertForMaskedLM"],
        "attention_probs_dropout_prob": 0.1,
        "gradient_checkpointing": False,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": d,
        "initializer_range": 0.02,
        "intermediate_size": 4 * d,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512,
        "model_type": "bert",
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "transformers_version": "4.6.0.dev0",
        "type_vocab_size": 2,
        "use_cache": True,
        "vocab_size": 30522,
    }


def _gpt2(d, heads, layers):
    return {
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.1,
        "bos_token_id": 50256,
        "embd_pdrop": 0.1,
        "eos_token_id": 50256,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05,
        "model_type": "gpt2",
        "n_ctx": 1024,
        "n_embd": d,
        "n_head": heads,
        "n_layer": layers,
        "n_positions": 1024,
        "n_special": 0,
        "output_past": True,
        "predict_special_tokens": True,
        "resid_pdrop": 0.1,
        "summary_activation": None,
        "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True,
        "summary_type": "cls_index",
        "summary_use_proj": True,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
        "vocab_size": 50257,
    }


def _gpt_neo(d, heads, layers):
    return {
        "activation_function": "gelu_new",
        "architectures": ["GPTNeoForCausalLM"],
        "attention_dropout": 0,
        "attention_layers": ["global", "local"] * (layers // 2),
        "attention_types": [[["global", "local"], layers // 2]],
        "bos_token_id": 50256,
        "embed_dropout": 0,
        "eos_token_id": 50256,
        "gradient_checkpointing": False,
        "hidden_size": d,
        "initializer_range": 0.02,
        "intermediate_size": None,
        "layer_norm_epsilon": 1e-05,
        "max_position_embeddings": 2048,
        "model_type": "gpt_neo",
        "num_heads": heads,
        "num_layers": layers,
        "resid_dropout": 0,
        "summary_activation": None,
        "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True,
        "summary_type": "cls_index",
        "summary_use_proj": True,
        "task_specific_params": {"text-generation": {"do_sample": True, "temperature": 0.9}},
        "tokenizer_class": "GPT2Tokenizer",
        "transformers_version": "4.9.0.dev0",
        "use_cache": True,
        "vocab_size": 50257,
        "window_size": 256,
    }


def _config(name, d, heads, layers):
    if name.startswith("albert"):
        return _albert(d, heads, layers, 16384 if d == 4096 else 4 * d)
    if name.startswith("bert"):
        return _bert(d, heads, layers)
    return _gpt2(d, heads, layers) if name.startswith("gpt2") else _gpt_neo(d, heads, layers)


CONFIGS = {name: _config(name, *row) for name, row in TABLE_1.items()}
