"""Tiny, randomly initialized text towers, written in the Hugging Face ONNX layout beside an image tower."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import transformers as hf
from models.parity.export import FAMILIES, SMALL
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = [
    "a photo of a dog on a beach",
    "two cats, three birds & a naïve fox",
    "日本語のテキスト",
    "The end.",
] * 9
CONTEXT = 16


class TextFamily:
    """A text tower, and the rule by which transformers takes a vector from it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_clip = name == "clip"
        self.tokenizer = _clip_tokenizer() if self.is_clip else _siglip_tokenizer()
        shape = {**SMALL, "vocab_size": len(self.tokenizer), "max_position_embeddings": CONTEXT}
        ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2 if self.is_clip else 0}
        torch.manual_seed(2)
        if self.is_clip:
            self.config = hf.CLIPTextConfig(**shape, **ends, projection_dim=32)
            self.model = hf.CLIPTextModelWithProjection(self.config)
        else:
            self.config = hf.SiglipTextConfig(**shape, **ends)
            self.model = hf.SiglipTextModel(self.config)
        with torch.no_grad():
            for parameter in self.model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0, parameter[0].numel() ** -0.5)
        self.model.eval()
        self.output = "text_embeds" if self.is_clip else "pooler_output"

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts with transformers alone, one by one, as its documentation of each family says."""
        # CLIP fills up to the longest of a batch, SigLIP always to the whole context.
        padding = True if self.is_clip else "max_length"
        made = []
        for text in texts:
            tokens = self.tokenizer(
                [text], padding=padding, truncation=True, max_length=CONTEXT, return_tensors="pt"
            )
            given = dict(tokens) if self.is_clip else {"input_ids": tokens["input_ids"]}
            with torch.no_grad():
                output = getattr(self.model(**given), self.output)
            made.append(torch.nn.functional.normalize(output)[0].numpy())
        return np.stack(made)

    def write(self, folder: Path) -> None:
        """Write both towers."""
        family = FAMILIES[self.name]()
        family.write(folder, family.build())
        config = {"model_type": self.name, "text_config": self.config.to_dict()}
        (folder / "config.json").write_text(json.dumps({**config, "vision_config": family.config.to_dict()}))
        self.tokenizer.save_pretrained(folder)
        ids = torch.tensor([[1, 5, 6, 2]]).repeat(2, 1)
        # As transformers.js exports them: CLIP's tower finds the end by itself, and takes no mask.
        torch.onnx.export(
            _Text(self.model, self.output),
            (ids if self.is_clip else torch.nn.functional.pad(ids, (0, CONTEXT - 4)),),
            folder / "onnx/text_model.onnx",
            input_names=["input_ids"],
            output_names=[self.output],
            dynamic_axes={"input_ids": {0: "batch_size", 1: "sequence"}, self.output: {0: "batch_size"}},
            opset_version=17,
            dynamo=False,
        )


class _Text(torch.nn.Module):
    def __init__(self, model: torch.nn.Module, output: str) -> None:
        super().__init__()
        self.model, self.output = model, output

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return getattr(self.model(input_ids=input_ids), self.output)


def _trained(tokenizer: Tokenizer, special: list[str]) -> Tokenizer:
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _clip_tokenizer() -> hf.PreTrainedTokenizerFast:
    special = ["<unk>", "<start>", "<end>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    _trained(tokenizer, special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 2)]
    )
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<end>", eos_token="<end>", model_max_length=CONTEXT
    )


def _siglip_tokenizer() -> hf.PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    _trained(tokenizer, ["<pad>", "<unk>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", model_max_length=CONTEXT
    )
