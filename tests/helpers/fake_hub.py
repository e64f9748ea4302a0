"""Folders that stand in for repositories of the hub."""

from huggingface_hub.utils import EntryNotFoundError


def download_from(root):
    """What `hf_hub_download` does, from a folder for each repository."""

    def download(repo_id, filename, subfolder="", **_):
        file = root / repo_id / subfolder / filename
        if not file.is_file():
            raise EntryNotFoundError(f"404: {repo_id} has no {filename}")
        return str(file)

    return download
