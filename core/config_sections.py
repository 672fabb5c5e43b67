"""The sections of a stage's configuration, each value with the sentence that says what it is for."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """Strict, frozen, with the string under each field as its description."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class ModelConfig(Section):
    """Sizes of the Transformer. Later stages inherit them from their parent."""

    architecture: Literal["gpt2", "modern", "nanochat"] = "gpt2"
    """gpt2: as released; modern: rotary positions, normalised queries and keys, squared ReLU, smeared tokens;
    nanochat: like modern, in the layout of that name, with a head of its own."""
    layers: Annotated[int, Field(ge=1, le=200)] = 12
    """Transformer blocks."""
    heads: Annotated[int, Field(ge=1, le=256)] = 12
    """Attention heads; they share the width evenly."""
    width: Annotated[int, Field(ge=8, le=16384)] = 768
    """Numbers in each token's vector (C)."""
    context: Annotated[int, Field(ge=8, le=65536)] = 1024
    """Tokens that the model can look back on (T)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of activations dropped in training; it helps where the data is seen many times."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "ModelConfig":
        if self.width % self.heads:
            near = max(h for h in range(1, self.heads + 1) if self.width % h == 0)
            raise ValueError(
                f"width {self.width} does not divide into {self.heads} heads; {near} heads would fit"
            )
        if self.architecture != "gpt2" and self.width // self.heads % 2:
            raise ValueError(f"{self.architecture} turns numbers in pairs: width over heads must be even")
        return self


class TokenizerConfig(Section):
    kind: Literal["gpt2", "trained"] = "gpt2"
    """gpt2: the published vocabulary of 50257; trained: byte pairs learned from this stage's data."""
    vocabulary: Annotated[int, Field(ge=300, le=65000)] = 4096
    """Token ids of a trained vocabulary, the markers included; gpt2 has its own size."""


class DataConfig(Section):
    source: Literal["sandlot", "files", "fineweb-edu", "nectar"]
    """sandlot: the built-in corpus; files: your own; fineweb-edu and nectar: from the hub, or a local copy at path."""
    path: str = ""
    """File or folder of text, JSON Lines or Parquet. For hub sources: a local copy to read instead."""
    max_tokens: Annotated[int, Field(ge=0)] = 0
    """Stop preparing documents after this many tokens; 0 takes all."""
    max_pairs: Annotated[int, Field(ge=0)] = 0
    """Stop preparing question-answer pairs after this many; 0 takes all."""
    validation_share: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    """Share of the documents or pairs held back to validate on."""
    supervise: Literal["answers", "all"] = "answers"
    """answers: only answer tokens are learned; all: question tokens too, as published."""


class BatchConfig(Section):
    tokens: Annotated[int, Field(ge=0, le=1 << 26)] = 0
    """Tokens per optimizer step, for text; gathered over micro-batches."""
    examples: Annotated[int, Field(ge=0, le=1 << 20)] = 0
    """Question-answer pairs per optimizer step; 0 means all of them, one step an epoch."""
    micro_batch: Annotated[int, Field(ge=1, le=1 << 16)] = 8
    """Rows computed at once. Lower it if memory runs out: the result stays the same."""


class OptimConfig(Section):
    learning_rate: Annotated[float, Field(gt=0, le=1)]
    """Peak rate."""
    matrices: Literal["adamw", "muon"] = "adamw"
    """What updates the blocks' matrices: AdamW as published, or Muon, which learns more from the same tokens."""
    muon_share: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Muon's rate as a share of the others'; embeddings bear a higher one than matrices."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the rate goes from its peak to its end."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps over which the rate rises from zero."""
    final_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The last rate as a share of the peak."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.1
    """On matrices only; biases and norms are left alone."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Memory of AdamW's mean gradient."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Memory of AdamW's squared gradient."""
    clip_norm: Annotated[float, Field(ge=0)] = 1.0
    """Longest gradient let through; 0 turns clipping off."""


class SampleConfig(Section):
    every: Annotated[int, Field(ge=0)] = 0
    """Steps between samples; 0 draws none. Above 0, a finetune stage also draws them at every validation."""
    prompts: list[str] = []
    """What the model is asked to go on from, or to answer."""
    max_tokens: Annotated[int, Field(ge=1, le=4096)] = 48
    """Longest sample."""
    temperature: Annotated[float, Field(ge=0, le=10)] = 0.8
    """0 takes the likeliest token each time."""
    top_k: Annotated[int, Field(ge=0)] = 10
    """Draw from this many likeliest tokens; 0 from all."""


BestBy = Literal["validation_loss", "domain_probability", "general_probability", "balance"]


class QualityConfig(Section):
    """Held-out questions that are asked while the stage trains."""

    questions: Annotated[int, Field(ge=0, le=1 << 20)] = 0
    """How many of each set are asked at every validation, the same ones each time; 0 asks none."""
    files: Annotated[list[str], Field(max_length=2)] = []
    """Files of questions in place of the built-in sets: the first on the domain, the second on other subjects."""
    best_by: BestBy = "validation_loss"
    """What rates checkpoints: validation_loss; the mean probability of right answers on the domain, or on other
    subjects; balance, the geometric mean of the two. Questions that rate are no longer held out from the choice."""

    @model_validator(mode="after")
    def _can_be_rated(self) -> "QualityConfig":
        if self.best_by != "validation_loss" and not self.questions:
            raise ValueError(f"best_by = {self.best_by} needs questions above 0")
        if len(self.files) == 1 and self.best_by in ("general_probability", "balance"):
            raise ValueError(f"best_by = {self.best_by} needs a second file, of questions on other subjects")
        return self
