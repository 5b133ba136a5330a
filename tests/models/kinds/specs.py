"""The kinds of model that the walk covers: sizes for a config, and what the files beside the weights say. Data, nothing else."""

from __future__ import annotations

from tests.models.kinds.kind import (
    ENDS,
    EVERY,
    HEARD,
    LLAMA,
    SEES,
    SMALL,
    STILL,
    TEXT,
    TOKENS,
    TWO_SIDED,
    VISION,
    VOCABULARY,
    WAVES,
    Kind,
    pair,
    picture,
    pictures,
    sound,
    sounds,
    speaker,
    words,
    writer,
)

KINDS = (
    pair(
        "clip",
        "CLIP",
        {"text_config": TEXT, "vision_config": VISION, "projection_dim": 12},
        pictures("CLIPImageProcessor", size={"shortest_edge": 32}, crop_size=32)
        | {"processor_config.json": {"processor_class": "CLIPProcessor"}},
        fast=True,
    ),
    pair(
        "siglip",
        "SigLIP",
        {"text_config": TEXT | {"projection_size": 16}, "vision_config": VISION},
        pictures("SiglipImageProcessor") | {"processor_config.json": {"processor_class": "SiglipProcessor"}},
        lr=2e-2,
    ),
    pair(
        "siglip2",
        "SigLIP 2",
        {"text_config": TEXT | {"projection_size": 16}, "vision_config": SMALL | {"num_patches": 16, "patch_size": 16}},
        {
            "preprocessor_config.json": {"image_processor_type": "Siglip2ImageProcessor", "patch_size": 16, "max_num_patches": 16},
            "processor_config.json": {"processor_class": "Siglip2Processor"},
        },
        lr=2e-2,
    ),
    pair(
        "clap",
        "CLAP",
        {
            "text_config": TEXT | STILL | {"projection_hidden_size": 16},
            "projection_dim": 12,
            "audio_config": STILL
            | {
                "window_size": 4,
                "num_mel_bins": 16,
                "spec_size": 64,
                "patch_size": 4,
                "patch_stride": [4, 4],
                "hidden_size": 16,
                "patch_embeds_hidden_size": 8,
                "depths": [1, 2],
                "num_attention_heads": [1, 2],
                "projection_hidden_size": 16,
                "num_hidden_layers": 2,
            },
        },
        sounds("ClapFeatureExtractor", feature_size=16, max_length_s=1, truncation="rand_trunc", padding="repeatpad")
        | {"processor_config.json": {"processor_class": "ClapProcessor"}},
        other="audio",
        blocks={"audio": "audio_config.depths"},
    ),
    pair(
        "chinese_clip",
        "Chinese-CLIP",
        {"text_config": TEXT, "vision_config": VISION, "projection_dim": 12},
        pictures("ChineseCLIPImageProcessor", crop_size={"height": 32, "width": 32})
        | {"processor_config.json": {"processor_class": "ChineseCLIPProcessor"}},
    ),
    picture("vit", "ViT", VISION, "num_hidden_layers"),
    picture(
        "dinov2",
        "DINOv2",
        SMALL | {"image_size": 32, "patch_size": 16, "mlp_ratio": 2},
        "num_hidden_layers",
        pictures("BitImageProcessor", size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
    ),
    picture(
        "swin",
        "Swin",
        {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": 4},
        "depths",
        fast=True,
    ),
    picture(
        "mobilevit",
        "MobileViT",
        {
            "image_size": 32,
            "patch_size": 2,
            "hidden_sizes": [8, 12, 16],
            "neck_hidden_sizes": [4, 4, 8, 8, 12, 16, 16],
            "num_attention_heads": 2,
        },
        7,
        pictures("MobileViTImageProcessor", size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}),
        lr=1e-2,
    ),
    picture(
        "convnext", "ConvNeXt", {"image_size": 32, "patch_size": 4, "hidden_sizes": [8, 16], "depths": [1, 2], "num_stages": 2}, "depths"
    ),
    picture(
        "resnet",
        "ResNet",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2], "layer_type": "basic"},
        "depths",
    ),
    words("bert", "BERT", TEXT, "num_hidden_layers", fast=True),
    words("gpt2", "GPT-2", ENDS | {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 80}, "n_layer"),
    words("llama", "Llama", TEXT | {"num_key_value_heads": 1}, "num_hidden_layers"),
    sound("wav2vec2", "Wav2Vec2", WAVES, sounds("Wav2Vec2FeatureExtractor", return_attention_mask=True), fast=True),
    sound(
        "wavlm",
        "WavLM",
        WAVES | {"num_buckets": 20, "max_bucket_distance": 40},
        sounds("Wav2Vec2FeatureExtractor", return_attention_mask=True),
    ),
    sound(
        "audio-spectrogram-transformer",
        "AST",
        SMALL | {"patch_size": 16, "max_length": 48, "num_mel_bins": 32},
        sounds("ASTFeatureExtractor", max_length=48, num_mel_bins=32),
    ),
    Kind(
        "videomae",
        "VideoMAE",
        "classify",
        VISION | {"image_size": 16, "patch_size": 8, "num_frames": 4},
        {"video": "video"},
        {"video": "num_hidden_layers"},
        {
            "preprocessor_config.json": {"video_processor_type": "VideoMAEVideoProcessor", "size": {"shortest_edge": 16}}
            | {"crop_size": {"height": 16, "width": 16}}
        },
    ),
    picture(
        "timm_wrapper",
        "timm through Transformers",
        {
            "architecture": "test_vit",
            "model_args": {"depth": 3, "img_size": 32, "embed_dim": 16},
            "pretrained_cfg": {"input_size": [3, 32, 32], "crop_pct": 1.0},
        },
        3,
        {},
    ),
    pair(
        "flava",
        "FLAVA",
        {
            "text_config": TEXT,
            "image_config": VISION,
            "multimodal_config": SMALL,
            "projection_dim": 12,
            "hidden_size": 16,
            "image_codebook_config": {"num_groups": 1, "hidden_size": 4, "vocab_size": 8},
            "init_codebook": False,
        },
        pictures("FlavaImageProcessor", crop_size={"height": 32, "width": 32}, return_image_mask=False, return_codebook_pixels=False)
        | {"processor_config.json": {"processor_class": "FlavaProcessor"}},
        blocks={"image": "image_config.num_hidden_layers"},
        lr=1e-2,
    ),
    pair(
        "blip",
        "BLIP",
        {
            "text_config": TEXT | STILL | {"encoder_hidden_size": 16, "projection_dim": 12},
            "vision_config": VISION | {"initializer_range": 0.02},
            "projection_dim": 12,
        },
        pictures("BlipImageProcessor") | {"processor_config.json": {"processor_class": "BlipProcessor"}},
        lr=5e-3,
    ),
    pair(
        "vilt",
        "ViLT",
        TEXT | VISION,
        pictures("ViltImageProcessor") | {"processor_config.json": {"processor_class": "ViltProcessor"}},
        blocks={"image": "num_hidden_layers", "text": "num_hidden_layers"},
        red={
            EVERY: "It joins picture and text from its first layer on, so that no tower is of one modality. Name a picture tower and a "
            "text tower under fusion_encoder with fuse: cross_attention instead."
        },
    ),
    picture(
        "perceiver",
        "Perceiver",
        {
            "num_latents": 4,
            "d_latents": 16,
            "d_model": 16,
            "num_blocks": 1,
            "num_self_attends_per_block": 3,
            "num_self_attention_heads": 2,
            "num_cross_attention_heads": 2,
        },
        "num_self_attends_per_block",
        pictures("PerceiverImageProcessor"),
        red={
            EVERY: "Without a head it reads arrays of its own width: what makes these of pictures or text belongs to each head's class. "
            "The tower `perceiver` of multitune reads pictures and sounds from scratch."
        },
    ),
    writer(
        "t5",
        "T5",
        "text",
        {
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 64,
            "dropout_rate": 0.0,
            "num_layers": 3,
            "num_decoder_layers": 2,
            "num_heads": 2,
            "vocab_size": VOCABULARY,
        }
        | ENDS
        | {"decoder_start_token_id": 0},
        ("num_layers", "num_decoder_layers"),
    ),
    writer(
        "bart",
        "BART",
        "text",
        TWO_SIDED
        | ENDS
        | {"vocab_size": VOCABULARY, "max_position_embeddings": 80, "decoder_start_token_id": 3, "forced_eos_token_id": None},
        ("encoder_layers", "decoder_layers"),
    ),
    writer(
        "whisper",
        "Whisper",
        "audio",
        TWO_SIDED
        | {"vocab_size": len(HEARD) + 256, "num_mel_bins": 20, "max_source_positions": 50, "max_target_positions": 60}
        | {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "decoder_start_token_id": 1, "begin_suppress_tokens": None},
        ("encoder_layers", "decoder_layers"),
        sounds("WhisperFeatureExtractor", feature_size=20, chunk_length=1, processor_class="WhisperProcessor"),
        tokenizer="heard",
        opened_as="AutoModelForSpeechSeq2Seq",
    ),
    speaker(
        "smolvlm",
        "SmolVLM",
        {"vision_config": SEES, "text_config": LLAMA, "scale_factor": 2, "image_token_id": TOKENS.index("<image>"), "pad_token_id": 0},
        {
            "preprocessor_config.json": {
                "image_processor_type": "SmolVLMImageProcessor",
                "do_image_splitting": False,
                "do_pad": True,
                "size": {"longest_edge": 32},
                "max_image_size": {"longest_edge": 32},
            },
            "video_preprocessor_config.json": {"video_processor_type": "SmolVLMVideoProcessor"},
            "processor_config.json": {"processor_class": "SmolVLMProcessor", "image_seq_len": 4},
        },
        "vision_config.num_hidden_layers",
    ),
    speaker(
        "llava",
        "LLaVA",
        {
            "vision_config": SEES | {"model_type": "clip_vision_model"},
            "text_config": LLAMA,
            "image_token_id": TOKENS.index("<image>"),
            "image_seq_length": 16,
            "vision_feature_layer": -1,
        },
        pictures("LlavaImageProcessor", size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
        | {
            "processor_config.json": {
                "processor_class": "LlavaProcessor",
                "patch_size": 8,
                "image_token": "<image>",
                "num_additional_image_tokens": 1,
                "vision_feature_select_strategy": "default",
            }
        },
        "vision_config.num_hidden_layers",
    ),
    speaker(
        "qwen2_vl",
        "Qwen2-VL",
        {
            "vision_config": {"depth": 3, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "patch_size": 4, "mlp_ratio": 2},
            "text_config": LLAMA | {"model_type": "qwen2_vl_text", "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]}},
            "image_token_id": TOKENS.index("<|image_pad|>"),
            "video_token_id": TOKENS.index("<|video_pad|>"),
            "vision_start_token_id": TOKENS.index("<|vision_start|>"),
            "vision_end_token_id": TOKENS.index("<|vision_end|>"),
        },
        {
            "preprocessor_config.json": {
                "image_processor_type": "Qwen2VLImageProcessor",
                "patch_size": 4,
                "min_pixels": 64,
                "max_pixels": 1024,
                "merge_size": 2,
            },
            "video_preprocessor_config.json": {"video_processor_type": "Qwen2VLVideoProcessor"},
            "processor_config.json": {"processor_class": "Qwen2VLProcessor"},
        },
        "vision_config.depth",
        image="<|vision_start|><|image_pad|><|vision_end|>",
    ),
)
