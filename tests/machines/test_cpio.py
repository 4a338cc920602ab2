# SPDX-License-Identifier: Apache-2.0
"""Archives for a kernel's start, read back by hand as cpio(5) describes them."""

import stat

from tests.machines import cpio


def read(data):
    """Yield (path, mode, content) of each entry up to each trailer."""
    at = 0
    while at < len(data):
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, links, size, name_size = fields[1], fields[4], fields[6], fields[11]
        name = data[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        assert links == 1
        start = -(-(at + 110 + name_size) // 4) * 4
        yield name[:-1].decode(), mode, data[start : start + size]
        at = -(-(start + size) // 4) * 4


def test_folders_files_and_links_are_read_back(tmp_path):
    (tmp_path / "lib/deep").mkdir(parents=True)
    (tmp_path / "lib/deep/a.py").write_bytes(b"import a")
    (tmp_path / "lib/deep/a.py").chmod(0o755)
    (tmp_path / "lib/b").symlink_to("deep/a.py")
    (tmp_path / "lib64").symlink_to("lib")
    entries = [*cpio.tree(tmp_path, "lib"), *cpio.tree(tmp_path, "lib64")]
    assert list(read(cpio.archive(entries))) == [
        ("lib", stat.S_IFDIR | 0o755, b""),
        ("lib/b", stat.S_IFLNK | 0o777, b"deep/a.py"),
        ("lib/deep", stat.S_IFDIR | 0o755, b""),
        ("lib/deep/a.py", stat.S_IFREG | 0o755, b"import a"),
        ("lib64", stat.S_IFLNK | 0o777, b"lib"),
        ("TRAILER!!!", 0, b""),
    ]


def test_archives_follow_one_another():
    data = cpio.archive([("a", b"1", 0o644)]) + cpio.archive([("b", b"22", 0o644)])
    assert [name for name, _, _ in read(data)] == ["a", "TRAILER!!!", "b", "TRAILER!!!"]
