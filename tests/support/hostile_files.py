# SPDX-License-Identifier: Apache-2.0
"""Small files that would have a reader of models take gigabytes, hours or others' memory."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable

HALVES = struct.pack("<2d", 1, 1)
POINTER = struct.pack("<Q", 0x4141414141414141)


def name(module: str, what: str) -> bytes:
    return f"c{module}\n{what}\n".encode()


def value(found: object) -> bytes:
    return pickle.dumps(found, 3)[2:-1]


def kind(spec: str, state: bytes = b"") -> bytes:
    made = name("numpy", "dtype") + value((spec, False, True)) + b"R"
    return made + state + b"b" if state else made


def array(shape: tuple[int, ...], of: bytes, data: object) -> bytes:
    empty = name("numpy.core.multiarray", "_reconstruct") + b"(" + name("numpy", "ndarray")
    empty += value((0,)) + value(b"b") + b"tR"
    return empty + b"(" + value(1) + value(shape) + of + value(False) + value(data) + b"tb"


def whole(body: bytes) -> bytes:
    return b"\x80\x03" + body + b"."


def hidden_objects() -> bytes:
    """A type whose state hides a field of objects under a type of bytes: numpy follows pointers."""
    inner = b"}" + value("a") + b"(" + kind("O8") + value(0) + b"ts"
    hidden = kind("V8", b"(" + value(3) + value("|") + b"N" + value(("a",)) + inner + value(8)
                  + value(1) + value(0) + b"t")  # fmt: skip
    outer = b"}" + value("b") + b"(" + hidden + value(0) + b"ts"
    state = b"(" + value(3) + value("|") + b"N" + value(("b",)) + outer
    return whole(array((1,), kind("V8", state + value(8) + value(1) + value(0) + b"t"), POINTER))


def many_bytes() -> bytes:
    """list(bytearray(10**8)), in the middle of an estimator."""
    made = name("builtins", "bytearray") + b"(" + value(10**8) + b"tR"
    return whole(name("builtins", "list") + b"(" + made + b"tR")


def copies_of_a_list() -> bytes:
    """list(the same list), some ten thousand times."""
    held = b"](" + b"K\x00" * 50000 + b"eq\x01"
    copied = name("builtins", "list") + b"q\x02" + b"0" + b"](" + b"h\x02h\x01\x85R" * 50000 + b"e"
    return whole(held + b"0" + copied)


def texts_again() -> bytes:
    """The same text made bytes of, again and again."""
    text = b"X" + struct.pack("<I", 500000) + b"a" * 500000 + b"q\x01X\x07\x00\x00\x00latin-1q\x03"
    call = name("builtins", "bytearray") + b"q\x02" + b"](" + b"h\x02h\x01h\x03\x86R" * 20000
    return whole(text + call + b"e")


def keys_that_collide() -> bytes:
    keys = b"".join(
        b"\x8a\x0a" + (number * ((1 << 61) - 1)).to_bytes(10, "little") + b"N"
        for number in range(1, 60000)
    )
    return whole(b"}(" + keys + b"u")


def shared_attributes() -> bytes:
    """Fifty thousand objects that have the same thirty thousand attributes."""
    state = b"}(" + b"".join(value(str(n)) + b"N" for n in range(30000)) + b"uq\x01"
    bag = name("sklearn.tree", "T") + b"q\x02"
    return whole(state + bag + b"](" + b"h\x02)\x81h\x01b" * 50000 + b"e")


def a_list_in_itself() -> bytes:
    return whole(b"]q\x00h\x00a")


def deep_lists() -> bytes:
    return whole(b"]" * 200000 + b"a" * 199999)


def deep_types() -> bytes:
    made = kind("V8")
    for _level in range(3000):
        inner = b"}" + value("a") + b"(" + made + value(0) + b"ts"
        state = b"(" + value(3) + value("|") + b"N" + value(("a",)) + inner + value(8)
        made = kind("V8", state + value(1) + value(0) + b"t")
    return whole(array((1,), made, POINTER))


def a_shape_of_nothing() -> bytes:
    """10**9 empty rows."""
    numbers = array((10**9, 0), kind("f8"), b"")
    state = b"}" + value("feature_names_in_") + numbers + b"s"
    return whole(name("sklearn.tree._classes", "DecisionTreeClassifier") + b")\x81" + state + b"b")


def many_classes() -> bytes:
    """A tree of one leaf and 10**9 classes."""
    nodes = nodes_of_one_leaf()
    values = array((1, 1, 2), kind("f8"), HALVES)
    return whole(forest(b"(" + one_tree(nodes, values) + b"l", 10**9))


def one_tree_often() -> bytes:
    """A forest that has the same tree a million times."""
    values = array((10000, 1, 2), kind("f8"), HALVES * 10000)
    tree = one_tree(nodes_of_one_leaf(10000), values)
    return whole(forest(tree + b"q\x010](" + b"h\x01" * 500000 + b"e", 2))


def nodes_of_one_leaf(count: int = 1) -> bytes:
    names = ("left_child", "right_child", "feature", "threshold")
    fields = b"}" + b"".join(
        value(one) + b"(" + kind("f8" if one == "threshold" else "i8") + value(8 * place) + b"ts"
        for place, one in enumerate(names)
    )
    state = b"(" + value(3) + value("|") + b"N" + value(names) + fields + value(32)
    of = kind("V32", state + value(1) + value(0) + b"t")
    return array((count,), of, struct.pack("<3qd", -1, -1, -2, -2.0) * count)


def one_tree(nodes: bytes, values: bytes) -> bytes:
    inner = name("sklearn.tree._tree", "Tree") + b")\x81}" + value("nodes") + nodes + b"s"
    inner += value("values") + values + b"sb"
    made = name("sklearn.tree._classes", "DecisionTreeClassifier") + b")\x81}"
    return made + value("tree_") + inner + b"sb"


def forest(trees: bytes, classes: int) -> bytes:
    made = name("sklearn.ensemble._forest", "RandomForestClassifier") + b")\x81}"
    made += value("estimators_") + trees + b"s" + value("n_outputs_") + value(1) + b"s"
    made += value("n_features_in_") + value(1) + b"s"
    return made + value("n_classes_") + value(classes) + b"sb"


def npy(count: int) -> bytes:
    head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({count},), }}"
    head = head.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode()


def skops(schema: object, files: dict[str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing) as archive:
        archive.writestr("schema.json", json.dumps(schema))
        for path, data in files.items():
            archive.writestr(path, data)
    return file.getvalue()


def small_archive() -> bytes:
    """1 MB of which half a gigabyte comes."""
    node = {"__loader__": "NdArrayNode", "type": "numpy", "file": "a.npy", "__id__": 1}
    data = npy(1 << 26) + bytes(8 << 26)
    return skops({"__loader__": "ListNode", "content": [node] * 4, "__id__": 2}, {"a.npy": data})


def lying_archive() -> bytes:
    """The archive says that an entry has 10 bytes; it has 200 MB."""
    node = {"__loader__": "NdArrayNode", "type": "numpy", "file": "a.npy", "__id__": 1}
    data = skops(node, {"a.npy": npy(1 << 24) + bytes(8 << 24)})
    size = struct.pack("<I", 128 + (8 << 24))
    return data.replace(size, struct.pack("<I", 10))


def deep_schema() -> bytes:
    node: dict[str, object] = {"__loader__": "JsonNode", "content": "1"}
    for number in range(300):
        node = {"__loader__": "ListNode", "content": [node], "__id__": number}
    return skops(node, {})


def lightgbm_of_columns() -> bytes:
    return (
        b"tree\nversion=v4\nnum_class=1\nmax_feature_idx=999999999999\nobjective=regression\n\n"
        b"Tree=0\nnum_leaves=1\n\nend of trees\n"
    )


def lightgbm_of_digits() -> bytes:
    head = b"tree\nversion=v4\nnum_class=1\nmax_feature_idx=0\nobjective=regression\n\nTree=0\n"
    digits = b'"' + b"1" * 300000 + b'x", 5'
    return head + b"decision_type=1\n\nend of trees\n\npandas_categorical:[[" + digits + b"]]\n"


def ubjson_of_constants() -> bytes:
    return b"{L" + struct.pack(">q", 7) + b"learner[#L" + struct.pack(">q", 10**9) + b"ZZZ"


def ubjson_of_typed_constants() -> bytes:
    return b"{L" + struct.pack(">q", 7) + b"learner[$Z#L" + struct.pack(">q", 10**9) + b"}"


def json_that_is_deep() -> bytes:
    return b'{"learner":' + b"[" * 500000


def json_of_infinity() -> bytes:
    return json.dumps(
        {
            "learner": {
                "gradient_booster": {"name": "gbtree", "model": {}},
                "learner_model_param": {"num_feature": 1e999, "num_class": 0},
                "objective": {"name": "reg:squarederror"},
            }
        }
    ).encode()


def onnx_of_crumbs() -> bytes:
    return b"\x3a\xc0\x9a\x0c" + b"\x5a\x00" * 100000


def aliases() -> bytes:
    """Billions of values, by names for names."""
    lines = ['a: &a ["x","x","x","x","x","x","x","x","x"]']
    for before, after in zip("abcdefgh", "bcdefghi"):
        lines.append(f"{after}: &{after} [{','.join([f'*{before}'] * 9)}]")
    return "\n".join([*lines, "flavors: {sklearn: {model_class: *i}}"]).encode()


SKLEARN: dict[str, Callable[[], bytes]] = {
    "hidden objects": hidden_objects,
    "many bytes": many_bytes,
    "copies of a list": copies_of_a_list,
    "texts again": texts_again,
    "keys that collide": keys_that_collide,
    "shared attributes": shared_attributes,
    "a list in itself": a_list_in_itself,
    "deep lists": deep_lists,
    "deep types": deep_types,
    "a shape of nothing": a_shape_of_nothing,
    "many classes": many_classes,
    "one tree often": one_tree_often,
    "a small archive": small_archive,
    "a lying archive": lying_archive,
    "a deep schema": deep_schema,
}
OTHERS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "lightgbm of columns": ("lightgbm", lightgbm_of_columns),
    "lightgbm of digits": ("lightgbm", lightgbm_of_digits),
    "ubjson of constants": ("xgboost", ubjson_of_constants),
    "ubjson of typed constants": ("xgboost", ubjson_of_typed_constants),
    "json that is deep": ("xgboost", json_that_is_deep),
    "json of infinity": ("xgboost", json_of_infinity),
    "onnx of crumbs": ("onnx", onnx_of_crumbs),
}
