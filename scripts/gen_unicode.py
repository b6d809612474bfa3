"""Writes src/text/o200k_tab.c: the character classes that the o200k split tells apart.

    pip install unicodedata2==16.0.0 && python scripts/gen_unicode.py > src/text/o200k_tab.c

The split is defined over Unicode 16.0 general categories; Python's own unicodedata is whatever
version its interpreter has, so the script insists on the right one.
"""
import sys

import unicodedata2

VERSION = "16.0.0"
BLOCK = 128  # code points a block

# White_Space of PropList.txt without CR and LF, which are a class of their own.
SPACES = [0x09, 0x0B, 0x0C, 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029,
          0x202F, 0x205F, 0x3000]
CLASS = {"Lu": "CH_UPPER", "Lt": "CH_UPPER", "Ll": "CH_LOWER", "Lm": "CH_OTHER",
         "Lo": "CH_OTHER", "Mn": "CH_MARK", "Mc": "CH_MARK", "Me": "CH_MARK",
         "Nd": "CH_DIGIT", "Nl": "CH_DIGIT", "No": "CH_DIGIT"}
# Values of enum ch_class in o200k_tab.h.
VALUE = {"CH_PUNCT": 0, "CH_SPACE": 1, "CH_NEWLINE": 2, "CH_DIGIT": 3, "CH_UPPER": 4,
         "CH_LOWER": 5, "CH_OTHER": 6, "CH_MARK": 7}


def classify(cp):
    if cp in (0x0A, 0x0D):
        return "CH_NEWLINE"
    if cp in SPACES:
        return "CH_SPACE"
    return CLASS.get(unicodedata2.category(chr(cp)), "CH_PUNCT")


def rows(values):
    """Comma-separated numbers, in lines of at most 100 columns."""
    line = "   "
    for v in values:
        item = f" {v},"
        if len(line) + len(item) > 100:
            print(line)
            line = "   "
        line += item
    print(line)


def main():
    if unicodedata2.unidata_version != VERSION:
        sys.exit(f"need Unicode {VERSION}, have {unicodedata2.unidata_version}")
    blocks, index = {}, []
    for start in range(0, 0x110000, BLOCK):
        block = tuple(VALUE[classify(cp)] for cp in range(start, start + BLOCK))
        index.append(blocks.setdefault(block, len(blocks)))
    if len(blocks) > 256:
        sys.exit("more than 256 different blocks: the index needs 16 bits")
    print(f"/* Character classes of Unicode {VERSION}. Made by scripts/gen_unicode.py; don't edit. */")
    print('#include "text/o200k_tab.h"')
    print("/* clang-format off */")
    print()
    print(f"const uint8_t ch_block[0x110000 / CH_BLOCK] = {{ /* block number by code point / {BLOCK} */")
    rows(index)
    print("};")
    print()
    print(f"const uint8_t ch_class[{len(blocks)}][CH_BLOCK] = {{ /* enum ch_class */")
    for number, block in enumerate(blocks):
        print(f"    {{ /* {number} */")
        rows(block)
        print("    },")
    print("};")


main()
