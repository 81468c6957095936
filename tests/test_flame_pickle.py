"""A FLAME pickle is read as data: its numbers come out, and nothing in it ever runs."""

import pickle
import pickletools
import random
import sys

import numpy as np
import pytest
import scipy.sparse
from flame_file import KINTREE, write_flame

from talkgs_cli.errors import BadInput
from talkgs_cli.heads.flame_pickle import read_pickle


def small_arrays():
    generator = np.random.default_rng(0)
    return {
        "v_template": generator.normal(size=(6, 3)),
        "f": np.array([[0, 1, 2], [3, 4, 5]], np.uint32),
        "shapedirs": np.asfortranarray(generator.normal(size=(6, 3, 4)).astype(np.float32)),
        "weights": np.zeros((6, 0)),
        "J_regressor": scipy.sparse.random(5, 6, 0.4, "csc", rng=generator),
        "by_row": scipy.sparse.random(5, 6, 0.4, "csr", rng=generator),
        "big_endian": np.arange(3, dtype=">i2"),
        "kintree_table": KINTREE,
        "bs_style": "lbs",
    }


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_the_numbers_come_out_as_they_went_in(tmp_path, protocol):
    arrays = small_arrays()
    path = write_flame(tmp_path / "small.pkl", arrays, protocol)
    read = read_pickle(path, (*(set(arrays) - {"bs_style"}), "absent"))
    assert "chumpy" not in sys.modules
    assert set(read) == set(arrays) - {"bs_style"}
    for name, values in read.items():
        wanted = arrays[name]
        wanted = wanted.toarray() if scipy.sparse.issparse(wanted) else wanted
        np.testing.assert_array_equal(values, wanted)


def test_an_array_that_python_2_wrote_is_read(tmp_path):
    path = tmp_path / "old.pkl"
    path.write_bytes(
        b"\x80\x02}U\x01fcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02K\x01\x86cnumpy\ndtype\nU\x02u2K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89U\x04\x01\x00\xff\x80tbs."
    )
    np.testing.assert_array_equal(read_pickle(path, ("f",))["f"], [[1], [0x80FF]])


class Call:
    """Pickled as a call."""

    def __init__(self, function, *arguments, state=None):
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.call


def attacks(canary):
    """Pickles that would make the file `canary` if they were run."""
    import os
    import subprocess

    shell = f"touch {canary}"
    python = f"open({str(canary)!r}, 'w')"
    yield "system", r"\.system,", Call(os.system, shell)
    yield "popen", r"\.Popen,", Call(subprocess.Popen, ["touch", str(canary)])
    yield "eval", r"\.eval,", Call(eval, python)
    yield "exec", r"\.exec,", Call(exec, python)
    yield "open", r"\.open,", Call(open, str(canary), "w")
    yield "getattr", r"\.(getattr|__import__),", Call(getattr, Call(__import__, "os"), "system")
    yield "state", r"\.system,", {"x": Call(os.system, shell)}
    yield "deep", r"\.system,", [[{"a": (1, Call(os.system, shell))}]]


def pickled_attacks(canary):
    for name, refused, attack in attacks(canary):
        for protocol in (0, 2, 4):
            for place in ("v_template", "unread"):
                content = pickle.dumps({place: attack}, protocol)
                yield pytest.param(content, refused, id=f"{name}-{place}-{protocol}")
    by_hand = {
        "dotted": b"\x80\x04\x8c\x09chumpy.ch\x8c\x17Ch.__init__.__globals__\x93.",
        "dotted_os": b"\x80\x04\x8c\x05numpy\x8c\x09os.system\x93.",
        "instance": b"(S'" + f"touch {canary}".encode() + b"'\nios\nsystem\n.",
        "loads": b"cpickle\nloads\n(B\x04\x00\x00\x00N...tR.",
        "numpy_load": b"cnumpy\nload\n(S'x'\ntR.",
        "runstring": b"cnumpy.testing._private.utils\nrunstring\n(S'x'\n}tR.",
    }
    for name, content in by_hand.items():
        yield pytest.param(content, r"asks for \w+", id=name)


CANARY = "talkgs_pickle_ran"


@pytest.mark.parametrize(("content", "refused"), list(pickled_attacks(CANARY)))
def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(
    tmp_path, monkeypatch, content, refused
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pkl"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=refused) as error:
        read_pickle(path, ("v_template",))
    assert error.value.hint
    assert not (tmp_path / CANARY).exists()


def test_the_attacks_would_work_on_an_ordinary_unpickler(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(next(iter(pickled_attacks(CANARY))).values[0])
    assert (tmp_path / CANARY).exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle at all",
        b"\x80\x02]q\x00.",  # a list
        b"\x80\x02Nr\xff\xff\xff\x7f.",  # remembers something in place two thousand million
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x00N.",  # bytes longer than any disk
        b"\x80\x02\x82\x01.",  # an extension code
        b"Pid\n.",  # a persistent id
        b"cchumpy.ch\nCh\n}b.",  # state for a class
        b"cchumpy.ch\nCh\n)\x81}U\x01xcchumpy.ch\nCh\n)\x81sb.",
    ],
)
def test_what_is_no_pickle_of_arrays_is_bad_input(tmp_path, content):
    path = tmp_path / "broken.pkl"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"broken\.pkl"):
        read_pickle(path, ("v_template",))


def test_an_array_that_holds_itself_is_bad_input(tmp_path):
    path = tmp_path / "endless.pkl"
    path.write_bytes(b"\x80\x02}U\x01fcchumpy.ch\nCh\n)\x81q\x00}U\x01xh\x00sbs.")
    pickletools.dis(path.read_bytes(), out=open("/dev/null", "w"))  # noqa: SIM115
    with pytest.raises(BadInput, match="without end"):
        read_pickle(path, ("f",))


def test_sizes_that_lie_are_bad_input(tmp_path):
    arrays = {"f": np.arange(6, dtype=np.int32).reshape(2, 3)}
    content = pickle.dumps(arrays, 2)
    path = tmp_path / "lie.pkl"
    for old, new in ((b"K\x02K\x03", b"K\x7fK\x7f"), (b"i4", b"O8"), (b"i4", b"i8")):
        assert old in content
        path.write_bytes(content.replace(old, new))
        with pytest.raises(BadInput):
            read_pickle(path, ("f",))


def test_damaged_files_are_read_or_refused_but_never_crash(tmp_path):
    content = write_flame(tmp_path / "small.pkl", small_arrays()).read_bytes()
    chance = random.Random(0)
    path = tmp_path / "damaged.pkl"
    refused = 0
    for trial in range(400):
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged[: chance.randrange(len(damaged))] if trial % 4 == 0 else damaged)
        try:
            read_pickle(path, tuple(small_arrays()))
        except BadInput:
            refused += 1
    assert refused > 100
