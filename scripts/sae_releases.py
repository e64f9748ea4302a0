"""The table of docs/saes.md: which of SAELens's releases are read, by the loader that SAELens uses for them."""

from importlib.metadata import version

from tiltmeter.saes.releases import groups


def main() -> None:
    """Print it as Markdown."""
    rows = groups()
    print(f"sae_lens {version('sae_lens')}: {sum(row.saes for row in rows):,} SAEs\n")
    print("| SAELens's loader | releases | SAEs | read |\n|---|---|---|---|")
    for row in rows:
        read = f"as {row.reader}" if row.refused is None else f"no: {row.refused}"
        print(f"| `{row.loader}` | {row.releases} | {row.saes:,} | {read} |")


if __name__ == "__main__":
    main()
