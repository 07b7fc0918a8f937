"""Which letters made this sound?

A network that somebody else trained, on a dictionary of American English, reads the letters of a word and
writes its pronunciation: one GRU reads, another writes a phoneme at a time. The logit of each phoneme is
explained at the embedding of the letters by DeepLIFT, against the mean embedding, so that the rows of each
map add up. Silent letters, and letters that are spoken together, can be read off the map. The weights come
with the package g2p-en (Apache 2.0), of which nothing else is used.
"""

from pathlib import Path
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

import jaxnn
from experiments._common.command import run_command
from experiments._common.options import make_folder
from experiments._common.results import save_results
from experiments._common.trained import folder_of
from jaxnn import attribution

LETTERS = ("<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz")
_PHONEMES = """
<pad> <unk> <s> </s> AA0 AA1 AA2 AE0 AE1 AE2 AH0 AH1 AH2 AO0 AO1 AO2 AW0 AW1 AW2 AY0 AY1 AY2 B CH D DH
EH0 EH1 EH2 ER0 ER1 ER2 EY0 EY1 EY2 F G HH IH0 IH1 IH2 IY0 IY1 IY2 JH K L M N NG OW0 OW1 OW2 OY0 OY1 OY2
P R S SH T TH UH0 UH1 UH2 UW UW0 UW1 UW2 V W Y Z ZH
"""
PHONEMES = tuple(_PHONEMES.split())
START, END, MOST = 2, 3, 20  # phonemes, and the largest number of them
Weights = dict[str, jax.Array]


class Spelling(NamedTuple):
    """A word, and which letters its phonemes are due to.

    Attributes:
        phonemes: the network's pronunciation.
        attributions: `(phonemes, letters + 1)`, the last column is that of the end of the word.
        gap: the largest completeness gap of a row, relative to the largest change of a logit.
    """

    word: str
    phonemes: list[str]
    attributions: np.ndarray
    gap: float


def main(
    words: Annotated[tuple[str, ...], tyro.conf.Positional] = ("knight", "psychology", "through", "jaxnn"),
    output: Path = Path("results/letters"),
) -> None:
    """Explain the pronunciation of words, letter by letter.

    Args:
        words: of the letters a to z.
        output: the folder for pictures and numbers.
    """
    make_folder(output)
    words = tuple(map(check_word, words))
    weights = load_weights()
    found = [explain(weights, word) for word in words]
    save_results(
        output,
        settings={"words": list(words)},
        tables=[table_of(found)],
        figures={"letters": figure_of(found)},
        metrics={each.word: {"phonemes": each.phonemes, "gap": each.gap} for each in found},
    )


def check_word(word: str) -> str:
    """The word in small letters; raise unless it has some of a to z, and no others."""
    small = word.lower()
    if not small or set(small) - set(LETTERS):
        raise ValueError(f"`words` must have letters from a to z; got {word!r}")
    return small


def load_weights() -> Weights:
    """The arrays of the package g2p-en, which is not imported: it would download a dictionary."""
    with np.load(folder_of("g2p_en", "g2p-en") / "checkpoint20.npz") as file:
        return {name: jnp.asarray(file[name]) for name in file.files}


def explain(weights: Weights, word: str) -> Spelling:
    """The pronunciation of a word, and the attribution of each phoneme to each letter."""
    tokens = jnp.array([LETTERS.index(letter) for letter in (*word, "</s>")])
    spoken = pronounce(weights, tokens)
    if not len(spoken):
        raise ValueError(f"`words` must be words that the network pronounces; it is silent at {word!r}")
    model = jax.tree_util.Partial(logits, weights, spoken)
    rest, embedding = jaxnn.split_at(model, tokens, "letters")
    baseline = jnp.broadcast_to(weights["enc_emb"][3:].mean(0), embedding.shape)

    def row(step: jax.Array, phoneme: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        found = attribution.deep_lift(rest, embedding, (step, phoneme), baseline=baseline)
        gap = attribution.completeness_gap(rest, embedding, (step, phoneme), found, baseline=baseline)
        return found.sum(1), gap, found.sum() - gap

    rows, gaps, changes = jax.vmap(row)(jnp.arange(len(spoken)), spoken)
    gap = float(jnp.abs(gaps).max() / jnp.abs(changes).max())
    return Spelling(word, [PHONEMES[i] for i in np.asarray(spoken)], np.asarray(rows), gap)


def logits(weights: Weights, spoken: jax.Array, tokens: jax.Array) -> jax.Array:
    """The logits of each phoneme after those before it, `(phonemes, 74)`; names the letters' embedding."""
    letters = jaxnn.tap(weights["enc_emb"][tokens], "letters")
    before = jnp.concatenate([jnp.array([START]), spoken[:-1]])
    read = gru(weights, "enc", letters, jnp.zeros(weights["enc_w_hh"].shape[1]))[-1]
    written = gru(weights, "dec", weights["dec_emb"][before], read)
    return written @ weights["fc_w"].T + weights["fc_b"]


def gru(weights: Weights, part: str, inputs: jax.Array, state: jax.Array) -> jax.Array:
    """The states of a GRU after each input, `(steps, size)`."""
    w_ih, w_hh, b_ih, b_hh = (weights[f"{part}_{name}"] for name in ("w_ih", "w_hh", "b_ih", "b_hh"))

    def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        r, z, n = jnp.split(x @ w_ih.T + b_ih, 3)
        hr, hz, hn = jnp.split(h @ w_hh.T + b_hh, 3)
        z = jax.nn.sigmoid(z + hz)
        h = (1 - z) * jnp.tanh(n + jax.nn.sigmoid(r + hr) * hn) + z * h
        return h, h

    return jax.lax.scan(step, state, inputs)[1]


def pronounce(weights: Weights, tokens: jax.Array) -> jax.Array:
    """The likeliest phoneme at each step, up to the end of the word."""
    spoken = jnp.full(MOST, END)
    for i in range(MOST):  # each needs the one before
        spoken = spoken.at[i].set(_next(weights, spoken, tokens, i))
        if spoken[i] == END:
            return spoken[:i]
    return spoken


@jax.jit
def _next(weights: Weights, spoken: jax.Array, tokens: jax.Array, i: int) -> jax.Array:
    return logits(weights, spoken, tokens)[i].argmax()


def table_of(found: list[Spelling]) -> Table:
    """One row per word: its phonemes, each with the letter that it is most due to."""
    table = Table(
        "word", "phoneme ← letter", "largest gap", title="The letter that each phoneme is most due to"
    )
    for each in found:
        letters = (*each.word, "end")
        most = [letters[i] for i in each.attributions.argmax(1)]
        pairs = "  ".join(f"{phoneme}←{letter}" for phoneme, letter in zip(each.phonemes, most, strict=True))
        table.add_row(each.word, pairs, f"{each.gap:.1e}")
    return table


def figure_of(found: list[Spelling]) -> Figure:
    """One map per word: phonemes by letters."""
    width = sum(len(each.word) + 3 for each in found) * 0.42
    figure, axes = plt.subplots(
        1, len(found), figsize=(max(width, 7.0), 4.5), squeeze=False, layout="constrained",
        width_ratios=[len(each.word) + 3 for each in found],
    )  # fmt: skip
    for each, ax in zip(found, axes[0], strict=True):
        draw(each, ax)
    figure.suptitle("What makes each phoneme likely (blue) or unlikely (red), letter by letter")
    return figure


def draw(each: Spelling, ax: Axes) -> None:
    """The map of one word."""
    jaxnn.plot.attribution(each.attributions, clip=100, title=each.word, name="logit", ax=ax)
    ax.set(aspect="auto", xticks=range(len(each.word) + 1), yticks=range(len(each.phonemes)))
    ax.set_xticklabels([*each.word, "end"])
    ax.set_yticklabels(each.phonemes)


if __name__ == "__main__":
    run_command(main)
