"""How much arithmetic, and how much reading, a token takes: what a pace is held against, as `FORMULA` says it.

Letters as in `core.model`; N numbers that are multiplied with each token: all of the blocks', and the head's, which in
GPT-2 is the token embedding. Looking up an embedding multiplies nothing.
"""

from core.model import Transformer


def multiplied_numbers(model: Transformer) -> int:
    """N."""
    return _of_blocks(model) + model.head.numel()


def per_trained_token(model: Transformer) -> int:
    """Operations of a token: the 6 is a product and a sum forward, and twice that backward.

    The 12 of attention: queries with keys, weights with values, over the whole context, as is usual, though the causal
    half of it would do. Source: Chowdhery et al. 2022, "PaLM", arXiv 2204.02311, appendix B.
    """
    c = model.config
    return 6 * multiplied_numbers(model) + 12 * c.layers * c.width * c.context


def per_prompt_token(model: Transformer, tokens: int) -> float:
    """Operations of each token of a prompt that is read at once; only its last one goes through the head."""
    c = model.config
    return 2 * _of_blocks(model) + 4 * c.layers * c.width * tokens + 2 * model.head.numel() / tokens


def bytes_per_drawn_token(model: Transformer, tokens_before: float, bytes_a_number: float) -> float:
    """Bytes that have to be read for one more token.

    Args:
        tokens_before: on average, those already held.
        bytes_a_number: of the weights as they are multiplied.
    """
    c = model.config
    held = 2 * c.layers * c.width * tokens_before * model.head.element_size()
    return multiplied_numbers(model) * bytes_a_number + held


def _of_blocks(model: Transformer) -> int:
    return sum(parameter.numel() for parameter in model.blocks.parameters())
