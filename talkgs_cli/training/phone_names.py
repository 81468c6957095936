"""How speech synthesisers call the phones of `visemes.VISEMES`, in five languages."""

from __future__ import annotations

from talkgs_cli.training.visemes import PAUSE, VISEMES

_ESPEAK_GROUPS: dict[str, str] = {
    "P": "p p: pp p^",
    "B": "b b: bb B",
    "M": "m m: m- mm",
    "F": "f f: ff",
    "V": "v v: vv v#",
    "W": "w w2 u^ w^",
    "R": "r r- r/ r* R R2 r2 *",
    "L": "l l# l/2 @L l^ l: l2 l/ ll",
    "TH": "T",
    "DH": "D D#",
    "S": "s s: ss s2 ts ts: tts",
    "Z": "z z: z# dz dz:",
    "SH": "S S: S; s; C C2 x^",
    "ZH": "Z Z; Z:",
    "CH": "tS tS: ttS",
    "JH": "dZ dZ: ddZ J",
    "T": "t t# t2 t: tt t[ t* ?",
    "D": "d d# d: dd d[ d2",
    "N": "n n- n: nn n^ n[",
    "K": "k k: kk k- x X Q c",
    "G": "g g: gg Q^ G",
    "NG": "N N:",
    "Y": "j j^ J^ i^ y^",
    "HH": "h h#",
    "AA": "A A: A@ 0 a a: 02 A~ A# aU@ 0#",
    "AE": "aa & a2 a3 E~ W~",
    "AH": "V V2 V#",
    "AO": "O O: O@ o@ O~ O2",
    "AW": "aU au",
    "AX": "@ @2 @5 @- a# @: @# @3 I# 3",
    "AY": "aI ai aI@ aI2",
    "EH": "E E: e@ E2 E# 8 eI2",
    "ER": "3: 3 V@",
    "EY": "eI e e: ei",
    "IH": "I I2 i2 I@",
    "IY": "i i: i@ i@3 i@ iI",
    "OE": "Y Y: W 8: oe y2",
    "OW": "oU o o: o~ O# ou",
    "OY": "OI oi OY",
    "UE": "y y: 2 yy",
    "UH": "U U@ U# U2",
    "UW": "u u: uu u2",
    PAUSE: "_ _: _! _| _:: ",
}
_ESPEAK = {mnemonic: name for name, group in _ESPEAK_GROUPS.items() for mnemonic in group.split()}
_STRESS = "',%=|~;`#0123456789:"


def from_espeak(mnemonic: str) -> str:
    """The phone of an espeak-ng mnemonic; a neutral vowel for what isn't known.

    >>> from_espeak("tS"), from_espeak("u:"), from_espeak("")
    ('CH', 'UW', 'pau')
    """
    if not mnemonic:
        return PAUSE
    for name in (mnemonic, mnemonic.lstrip("',%="), mnemonic.rstrip(_STRESS)):
        if name in _ESPEAK:
            return _ESPEAK[name]
    return "AX"


def from_flite(name: str) -> str:
    """The phone of flite's name for it (CMU's set, lower case)."""
    upper = name.upper()
    return PAUSE if upper in ("PAU", "SIL", "SSIL") else upper if upper in VISEMES else "AX"
