"""Files and folders of others, under all names that could be mistaken for checkpoints."""

import shutil


def others_in(folder, rng, count):
    """Write them, and return their contents by path."""
    folder.mkdir(parents=True, exist_ok=True)
    before = contents(folder)
    ours = sorted(folder.glob("checkpoint-*/seal.json"))
    for number in range(count):
        name, path = _name(rng), folder
        while path.exists() or path.is_symlink():
            name += rng.choice("0123456789")
            path = folder / name
        kind = number % 5
        if kind == 0:
            path.write_text(f"file {number}")
        elif kind == 1:
            path.symlink_to(rng.choice([".", "nothing", "/etc/hostname"]))
        elif kind == 2 and ours:  # a copy of a checkpoint of the run
            shutil.copytree(rng.choice(ours).parent, path)
        else:
            (path / "photographs").mkdir(parents=True)
            (path / "photographs" / "1.png").write_text(f"picture {number}")
            if ours and kind == 3:
                shutil.copy(rng.choice(ours), path / "seal.json")
            elif kind == 3:
                (path / "seal.json").write_text("sealed by others")
    return {name: what for name, what in contents(folder).items() if name not in before}


def contents(folder):
    """What each file and link holds, by its path in the folder."""
    return {
        path.relative_to(folder).as_posix(): f"link {path.readlink()}"
        if path.is_symlink()
        else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def _name(rng):
    number, token = rng.randrange(3000), f"{rng.getrandbits(32):08x}"
    return rng.choice(
        [
            str(number),
            f"{number}.orbax-checkpoint-tmp",
            f"{token}.orbax-checkpoint-tmp-{number}",
            f"checkpoint-{number:09}-{token}",
            f"checkpoint-{number}",
            f"unfinished-{rng.getrandbits(128):032x}",
            "unfinished-",
            f".{token}",
            f".jaxnn-{token}{token}-{rng.getrandbits(128):032x}",
            f"checkpoints-of-jaxnn-{number}",
            f"arrays.{token}",
            token,
        ]
    )
