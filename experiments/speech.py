"""Which moment of a sound makes it speech?

A network that somebody else trained decides 31 times a second whether somebody speaks: convolutions look at
the spectrum of half a thousand samples, and an LSTM remembers. Four sounds are made up and put one after the
other: noise, a pure tone, a melody of vowels with the resonances of a throat, and clicks; a recording of your
own takes their place. DeepLIFT, relative to silence, says for the moment at which the network is most certain
which samples this is due to. The weights come with the package silero-vad (MIT), of which nothing else is
used.
"""

import wave
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

import jaxnn
from experiments._common.command import run_command
from experiments._common.options import make_folder
from experiments._common.results import save_results
from experiments._common.trained import folder_of
from jaxnn import attribution

RATE = 16_000  # samples per second
CHUNK, CONTEXT = 512, 64  # samples per decision, and those before that it sees, too
PAD, STRIDE, BANDS = 64, 128, 129  # of the spectrum
FORMANTS = {"a": (730, 1090, 2440), "e": (530, 1840, 2480), "i": (270, 2290, 3010), "o": (570, 840, 2410)}
Weights = dict[str, jax.Array]
State = tuple[jax.Array, jax.Array]


def main(sound: Path | None = None, output: Path = Path("results/speech")) -> None:
    """Explain what a network for speech hears.

    Args:
        sound: a WAV file of 16 bits, one channel and 16,000 samples per second; by default four sounds.
        output: the folder for pictures and numbers.
    """
    make_folder(output)
    weights = load_weights()
    samples, parts = (
        (made_up(), ("noise", "tone", "vowels", "clicks")) if sound is None else (read(sound), ("",))
    )
    model = jax.tree_util.Partial(logits, weights)
    heard = np.asarray(jax.nn.sigmoid(jax.jit(model)(samples)))
    moment = int(heard.argmax())
    found = attribution.deep_lift(model, samples, moment)
    gap = float(attribution.completeness_gap(model, samples, moment, found))
    by_chunk = np.asarray(found).reshape(-1, CHUNK).sum(1)
    save_results(
        output,
        settings={"sound": str(sound or "")},
        tables=[table_of(heard, by_chunk, parts)],
        figures={"speech": figure_of(np.asarray(samples), heard, by_chunk, moment)},
        metrics={"heard": heard.tolist(), "moment": moment, "gap": gap, "attributions": by_chunk.tolist()},
    )


def load_weights() -> Weights:
    """The arrays of the package silero-vad, which is not imported: it would need PyTorch."""
    file = folder_of("silero_vad", "silero-vad") / "data" / "silero_vad_16k.safetensors"
    from safetensors.numpy import load_file  # of the same extra

    return {name: jnp.asarray(array) for name, array in load_file(file).items()}


def logits(weights: Weights, samples: jax.Array) -> jax.Array:
    """The logit of speech in each chunk of 512 samples: `(n,) -> (n / 512,)`."""
    chunks = samples.reshape(-1, CHUNK)
    later = jnp.concatenate([jnp.zeros(CONTEXT, samples.dtype), samples])[: len(samples)]
    windows = jnp.concatenate([later.reshape(-1, CHUNK)[:, :CONTEXT], chunks], 1)
    spectra = jaxnn.tap(jax.vmap(lambda window: spectrum(weights, window))(windows), "spectra")
    features = jax.vmap(lambda each: encode(weights, each))(spectra)

    def step(
        state: tuple[jax.Array, jax.Array], x: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        h, c = state
        gates = weights["lstm_cell.weight_ih"] @ x + weights["lstm_cell.bias_ih"]
        gates = gates + weights["lstm_cell.weight_hh"] @ h + weights["lstm_cell.bias_hh"]
        i, f, g, o = jnp.split(gates, 4)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    zeros = jnp.zeros(features.shape[1], features.dtype)
    states = jax.lax.scan(step, (zeros, zeros), features)[1]
    return jax.nn.relu(states) @ weights["final_conv.weight"][0, :, 0] + weights["final_conv.bias"][0]


def spectrum(weights: Weights, window: jax.Array) -> jax.Array:
    """The magnitudes of 129 frequencies at four moments, `(129, 4)`."""
    padded = jnp.pad(window, (0, PAD), mode="reflect")
    both = convolve(weights["stft_conv.weight"], padded[None], STRIDE, 0)
    power = jnp.square(both[:BANDS]) + jnp.square(both[BANDS:])
    return jnp.sqrt(power + 1e-20)  # the derivative of a root at 0, silence, is infinite


def encode(weights: Weights, spectra: jax.Array) -> jax.Array:
    """Four convolutions over time: `(129, 4) -> (128,)`."""
    for i, stride in enumerate((1, 2, 2, 1), start=1):
        signal = convolve(weights[f"conv{i}.weight"], spectra, stride, 1)
        spectra = jax.nn.relu(signal + weights[f"conv{i}.bias"][:, None])
    return spectra[:, 0]


def convolve(kernel: jax.Array, x: jax.Array, stride: int, padding: int) -> jax.Array:
    """A convolution in one dimension: `(out, in, width)` and `(in, n)`."""
    dimensions = ("NCH", "OIH", "NCH")
    pads = [(padding, padding)]
    return jax.lax.conv_general_dilated(x[None], kernel, (stride,), pads, dimension_numbers=dimensions)[0]


def made_up() -> jax.Array:
    """Noise, a tone, a melody of four vowels, and clicks: a second each, with a pause between."""
    rng = np.random.default_rng(0)
    t = np.arange(RATE) / RATE
    clicks = np.zeros(RATE)
    clicks[:: RATE // 8] = 1.0
    vowels = np.concatenate([vowel(FORMANTS[name], 110.0 + 15 * i) for i, name in enumerate("aeio")])
    parts = [0.1 * rng.normal(size=RATE), 0.3 * np.sin(2 * np.pi * 440 * t), vowels, clicks]
    pause = np.zeros(RATE // 2)
    sound = np.concatenate([each for part in parts for each in (part, pause)])
    return jnp.asarray(sound[: len(sound) // CHUNK * CHUNK], jnp.float32)


def vowel(formants: tuple[int, ...], pitch: float, seconds: float = 0.25) -> np.ndarray:
    """A vowel: the harmonics of a voice, each as loud as the resonances of a throat let it pass."""
    t = np.arange(round(seconds * RATE)) / RATE
    harmonics = np.arange(pitch, 4000, pitch)
    loudness = sum(1 / (1 + ((harmonics - formant) / 80.0) ** 2) for formant in formants) / harmonics**0.5
    sound = loudness @ np.sin(2 * np.pi * harmonics[:, None] * t * (1 + 0.002 * np.sin(2 * np.pi * 5 * t)))
    envelope = np.minimum(1, np.minimum(t, t[::-1]) / 0.03)
    return 0.3 * envelope * sound / np.abs(sound).max()


def read(path: Path) -> jax.Array:
    """The samples of a WAV file, in -1 to 1, in whole chunks."""
    with wave.open(str(path)) as file:
        kind = file.getsampwidth(), file.getnchannels(), file.getframerate()
        if kind != (2, 1, RATE):
            raise ValueError(
                "`sound` must have 16 bits (2 bytes), one channel and 16,000 samples per second; got "
                f"{kind[0]} bytes, {kind[1]} channels and {kind[2]}"
            )
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 2**15
    if len(samples) < CHUNK:
        raise ValueError(f"`sound` must have {CHUNK} samples or more; got {len(samples)}")
    return jnp.asarray(samples[: len(samples) // CHUNK * CHUNK], jnp.float32)


def table_of(heard: np.ndarray, by_chunk: np.ndarray, parts: tuple[str, ...]) -> Table:
    """One row per part of the sound."""
    table = Table("part", "largest probability of speech", "attribution", title="What the network hears")
    for name, probabilities, values in zip(
        parts, np.array_split(heard, len(parts)), np.array_split(by_chunk, len(parts)), strict=True
    ):
        table.add_row(name, f"{probabilities.max():.3f}", f"{values.sum():+.2f}")
    return table


def figure_of(samples: np.ndarray, heard: np.ndarray, by_chunk: np.ndarray, moment: int) -> Figure:
    """The sound, the probability of speech, and what the explained moment is due to."""
    figure, (top, middle, bottom) = plt.subplots(3, 1, figsize=(9, 6), sharex=True, layout="constrained")
    top.plot(np.arange(len(samples)) / RATE, samples, linewidth=0.3, color="black")
    top.set_ylabel("sound pressure")
    times = (np.arange(len(heard)) + 0.5) * CHUNK / RATE
    middle.plot(times, heard, color=jaxnn.plot.BLUE)
    middle.axvline(times[moment], color="gray", linestyle=":")
    middle.set(ylim=(0, 1.05), ylabel="probability of speech")
    colors = [jaxnn.plot.BLUE if value >= 0 else jaxnn.plot.ORANGE for value in by_chunk]
    bottom.bar(times, by_chunk, width=CHUNK / RATE, color=colors)
    bottom.axvline(times[moment], color="gray", linestyle=":")
    bottom.set(ylabel="attribution (logit)", xlabel="time (s)")
    figure.suptitle(
        f"What the network hears, and what its output at {times[moment]:.2f} s (dotted) is due to"
    )
    return figure


if __name__ == "__main__":
    run_command(main)
