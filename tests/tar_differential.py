"""Writes archives with tarfile and GNU tar from a seed, or lists what tarfile reads in every archive of a folder."""
import hashlib, io, os, random, subprocess, sys, tarfile

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def name(rand, long):
    part = lambda: "".join(rand.choice("abcXYZ019_-. é") for _ in range(rand.randint(1, 12))).strip(" .") or "n"
    parts = [part() for _ in range(rand.randint(1, 4))]
    if long and rand.random() < 0.3:
        parts.append("l" * rand.randint(90, 240))
    return "/".join(parts)


def write_tarfile(path, rand):
    form = rand.choice(FORMATS)
    long = form != tarfile.USTAR_FORMAT
    with tarfile.open(path, "w", format=form, encoding="utf-8", errors="surrogateescape") as tar:
        files = []
        for _ in range(rand.randint(1, 12)):
            info = tarfile.TarInfo(name(rand, long))
            info.mode = rand.choice([0o644, 0o755, 0o4755, 0o1777, 0o600, 0])
            info.mtime = rand.choice([0, 1, 1000000000, 1700000000])
            info.uid, info.gid = rand.choice([(0, 0), (1000, 1000), (65534, 7)])
            if form == tarfile.PAX_FORMAT:
                info.mtime += rand.choice([0, 0.25])
                if rand.random() < 0.3:
                    info.pax_headers = {"SCHILY.xattr.user.a": "value", "comment": "x" * rand.randint(0, 700)}
            kind = rand.choice("fffdshpc")
            data = None
            if kind == "f":
                data = rand.randbytes(rand.choice([0, 1, 511, 512, 513, 3000]))
                info.size = len(data)
                files.append(info.name)
            elif kind == "d":
                info.type = tarfile.DIRTYPE
            elif kind == "s":
                info.type, info.linkname = tarfile.SYMTYPE, "../" + name(rand, long)
            elif kind == "h" and files:
                info.type, info.linkname = tarfile.LNKTYPE, rand.choice(files)
            elif kind == "c":
                info.type, info.devmajor, info.devminor = tarfile.CHRTYPE, 1, rand.randint(1, 9)
            else:
                info.type = tarfile.FIFOTYPE
            tar.addfile(info, io.BytesIO(data) if data is not None else None)


def write_gnu(path, rand):
    source = path + ".d"
    form = rand.choice([["gnu"], ["pax"], ["pax", "--sparse-version=0.0"], ["pax", "--sparse-version=0.1"], ["ustar"], ["v7"]])
    os.makedirs(source + "/dir/" + "n" * rand.randint(1, 80 if form == ["ustar"] else 150))
    with open(source + "/plain", "wb") as file:
        file.write(rand.randbytes(rand.randint(0, 2000)))
    with open(source + "/holes", "wb") as file:
        for _ in range(rand.choice([1, 3, 30])):
            file.seek(rand.choice([4096, 65536, 131072]), os.SEEK_CUR)
            file.write(b"data" * 1024)
        file.truncate(file.tell() + rand.choice([0, 100000]))
    os.link(source + "/plain", source + "/dir/hard")
    os.symlink("t" * rand.choice([5, 120]), source + "/dir/soft")
    command = ["tar", "--create", "--file", path, "--format=" + form[0], *form[1:], "--mtime=@1000000000", "--sort=name"]
    if form[0] in ("gnu", "pax"):
        command.append("--sparse")
    if form[0] == "gnu" and rand.random() < 0.3:
        command.append("--label=volume")
    if form[0] == "v7":
        command.append("--exclude=dir")
    if form[0] == "ustar":
        command.append("--exclude=soft")
    subprocess.run(command + ["-C", source, "."], check=True)


def member(tar, info):
    kinds = {tarfile.DIRTYPE: "d", tarfile.SYMTYPE: "s", tarfile.LNKTYPE: "h", tarfile.CHRTYPE: "c", tarfile.BLKTYPE: "b", tarfile.FIFOTYPE: "p"}
    kind = "f" if info.isreg() else kinds[info.type]
    hexed = lambda text: os.fsencode(text).hex()
    digest = ""
    if kind == "f":
        if info.size > 64 << 20:
            raise ValueError("too large for the test")
        data = tar.extractfile(info).read()
        if len(data) != info.size:
            raise ValueError("short")
        digest = hashlib.sha256(data).hexdigest()
    fields = [kind, hexed(info.name.rstrip("/")), hexed(info.linkname) if kind in "sh" else "", info.size if kind == "f" else 0]
    return "|".join(map(str, fields + [info.mode & 0o7777, int(info.mtime // 1), digest]))


def read(path):
    try:
        with tarfile.open(path, "r:", encoding="utf-8", errors="surrogateescape", errorlevel=2) as tar:
            lines = [member(tar, info) for info in tar if info.type != b"V"]
        text = "".join(line + "\n" for line in lines)
    except Exception as error:
        text = "error " + type(error).__name__ + "\n"
    with open(path[:-4] + ".txt", "w") as file:
        file.write(text)


if sys.argv[1] == "write":
    seed, count, folder = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    rand = random.Random(seed)
    for index in range(count):
        (write_gnu if index % 3 == 0 else write_tarfile)(f"{folder}/{index}.tar", rand)
else:
    for file in sorted(os.listdir(sys.argv[2])):
        if file.endswith(".tar"):
            read(os.path.join(sys.argv[2], file))
