"""The papers' tables: `python -m experiments NAME --table=TABLE`; a folder declares a paper."""
