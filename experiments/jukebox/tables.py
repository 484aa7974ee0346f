"""What Jukebox's tables compare: other music first, codebook, start and loss of the encoder."""

from typing import Any

from experiments.experiment import Column, Run, Table, changed, rows_of

COLUMNS = {
    "sdr_db": Column("SDR dB"),
    "sdr_db_median": Column("median dB"),
    "usdr_db": Column("uSDR dB"),
    "si_sdr_db": Column("SI-SDR dB"),
    "mixture/sdr_db": Column("mixture dB"),
}
# Those of differences and figures.
SHOWN = ("usdr_db", "si_sdr_db")
MUSIC, VQVAE, ENCODER = "music", "vqvae", "encoder"


OTHER_MUSIC = changed("music", MUSIC)


def transferred(name: str, borrows: tuple[Run, str], **fields: Any) -> Run:
    """All three stages, the first one or two of them borrowed."""
    return changed(name, MUSIC, VQVAE, ENCODER, borrows=borrows, **fields)


TRANSFER = transferred("transfer", (OTHER_MUSIC, MUSIC))
FROM_NOTHING = changed("from_nothing", VQVAE, ENCODER)
# As many steps in all as with other music first.
LONGER = changed("from_nothing_longer", VQVAE, ENCODER, stages__vqvae__steps=450)
FROZEN = transferred("frozen", (OTHER_MUSIC, MUSIC), codebook_update="frozen")
LMIX = transferred("lmix", (TRANSFER, VQVAE), stages__encoder__loss="lmix")
# A stage `vqvae` keeps what it started from only where the second encoder will start there too.
INITIAL = {
    start: transferred(f"from_{start}", lender, stages__encoder__init=start)
    for start, lender in (("pretrained", (OTHER_MUSIC, MUSIC)), ("stem", (TRANSFER, VQVAE)))
}

MAIN = Table(
    "From nothing, and after other music",
    "from nothing the SDR is about 0 dB, after Jukebox's music 4 to 5 dB; "
    "but its first row came from a codebook of zeros that never moved",
    rows_of(
        ENCODER,
        {
            "from nothing": FROM_NOTHING,
            "from nothing, as many steps in all": LONGER,
            "other music first": TRANSFER,
        },
    ),
)
CODEBOOK = Table(
    "A codebook that follows the stem, or stays as other music left it",
    "not compared: the text says it follows, the code on two devices left it as it was",
    rows_of(ENCODER, {"follows (ema)": TRANSFER, "frozen": FROZEN}),
)
START = Table(
    "Where the second encoder starts",
    "random in the text; the released code differs from version to version",
    rows_of(ENCODER, {"random": TRANSFER, **INITIAL}),
)
LOSS = Table(
    "The loss of the second encoder",
    "the text has the mean squared error, the code adds 0.02 times its largest squares",
    rows_of(ENCODER, {"mse": TRANSFER, "lmix": LMIX}),
)
_CODED = {"from nothing": FROM_NOTHING, "other music first": TRANSFER}
CODED = Table(
    "The stem itself through the codebook, which bounds the separation",
    "not published",
    rows_of(VQVAE, {**_CODED, "other music first, frozen codebook": FROZEN}),
)

TABLES = {"main": MAIN, "codebook": CODEBOOK, "start": START, "loss": LOSS, "coded": CODED}
