"""What Jukebox's tables compare: other music first, the codebook, where the second encoder starts, and its loss."""

from typing import Any

from grid import Row, Run, Table

COLUMNS = {  # score: heading, factor, digits
    "sdr_db": ("SDR dB", 1, 2),
    "sdr_db_median": ("median dB", 1, 2),
    "usdr_db": ("uSDR dB", 1, 2),
    "si_sdr_db": ("SI-SDR dB", 1, 2),
    "mixture/sdr_db": ("mixture dB", 1, 2),
}
MUSIC, VQVAE, ENCODER = "music", "vqvae", "encoder"


def _run(name: str, *stages: str, borrows: tuple[Run, str] | None = None, **fields: Any) -> Run:
    """`__` in a field stands for a point."""
    named = {key.replace("__", "."): value for key, value in fields.items()}
    return Run(name, stages, named, borrows)


OTHER_MUSIC = _run("music", MUSIC)


def transferred(name: str, borrows: tuple[Run, str], **fields: Any) -> Run:
    """All three stages, the first one or two of them borrowed."""
    return _run(name, MUSIC, VQVAE, ENCODER, borrows=borrows, **fields)


TRANSFER = transferred("transfer", (OTHER_MUSIC, MUSIC))
FROM_NOTHING = _run("from_nothing", VQVAE, ENCODER)
# As many steps in all as with other music first.
LONGER = _run("from_nothing_longer", VQVAE, ENCODER, stages__vqvae__steps=450)
FROZEN = transferred("frozen", (OTHER_MUSIC, MUSIC), codebook_update="frozen")
LMIX = transferred("lmix", (TRANSFER, VQVAE), stages__encoder__loss="lmix")
# A stage `vqvae` keeps what it started from only where the second encoder will start there too.
INITIAL = {
    start: transferred(f"from_{start}", lender, stages__encoder__init=start)
    for start, lender in (("pretrained", (OTHER_MUSIC, MUSIC)), ("stem", (TRANSFER, VQVAE)))
}

MAIN = Table(
    "From nothing, and after other music",
    "from nothing the SDR is about 0 dB, after Jukebox's music 4 to 5 dB; but its first row came from a codebook of zeros that never moved",
    (
        Row("from nothing", FROM_NOTHING, ENCODER),
        Row("from nothing, as many steps in all", LONGER, ENCODER),
        Row("other music first", TRANSFER, ENCODER),
    ),
    base=0,
)
CODEBOOK = Table(
    "A codebook that follows the stem, or stays as other music left it",
    "not compared: the text says it follows, the code on two devices left it as it was",
    (Row("follows (ema)", TRANSFER, ENCODER), Row("frozen", FROZEN, ENCODER)),
    base=0,
)
START = Table(
    "Where the second encoder starts",
    "random in the text; the released code differs from version to version",
    (
        Row("random", TRANSFER, ENCODER),
        *(Row(start, run, ENCODER) for start, run in INITIAL.items()),
    ),
    base=0,
)
LOSS = Table(
    "The loss of the second encoder",
    "the text has the mean squared error, the code adds 0.02 times its largest squares",
    (Row("mse", TRANSFER, ENCODER), Row("lmix", LMIX, ENCODER)),
    base=0,
)
CODED = Table(
    "The stem itself through the codebook, which bounds the separation",
    "not published",
    (
        Row("from nothing", FROM_NOTHING, VQVAE),
        Row("other music first", TRANSFER, VQVAE),
        Row("other music first, frozen codebook", FROZEN, VQVAE),
    ),
    base=0,
)

TABLES = {"main": MAIN, "codebook": CODEBOOK, "start": START, "loss": LOSS, "coded": CODED}
