"""Schemas as registries and files have them, and which message of theirs is meant."""

from __future__ import annotations

import base64
import importlib
from pathlib import Path

import pytest

pytest.importorskip("ptars", reason="needs the extra [protobuf]")

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

from batcher.errors import ConfigurationError
from batcher.formats.protobuf.codec import CODEC, aliases_of
from batcher.formats.protobuf.confluent import CONFLUENT
from batcher.formats.protobuf.file import ProtoFile
from batcher.formats.protobuf.schema import load
from batcher.formats.writer_schema import SchemaKey, WriterSchema
from batcher.formats.written import SchemaBroken

ORDER = """
syntax = "proto3";
package shop;
import "common/money.proto";
message Other { int32 x = 1; }
message Order { message Line { string sku = 1; } int64 id = 1; common.Money total = 2; repeated Line lines = 3; }
"""
MONEY = 'syntax = "proto3"; package common; message Money { string currency = 1; int64 units = 2; }'
NAME = "common/money.proto"
COLUMNS = ["id", "total", "lines"]


def columns(written: WriterSchema, *indexes: int) -> list[str]:
    return list(CODEC.reader(written, SchemaKey(indexes=indexes), None).schema.names)


def serialized(text: str, references: dict[str, str], name: str) -> str:
    file = load(WriterSchema("protobuf", text, references)).files[-1]
    file.name = name
    return base64.b64encode(file.SerializeToString()).decode()


def test_indexes_lead_to_the_message_and_to_one_inside_another() -> None:
    written = WriterSchema("protobuf", ORDER, {NAME: MONEY})

    assert columns(written, 0) == ["x"]
    assert columns(written, 1) == COLUMNS
    assert columns(written, 1, 0) == ["sku"]
    with pytest.raises(SchemaBroken, match=r"names message 1\.1 of it, and there is no such message"):
        columns(written, 1, 1)


def test_a_name_leads_there_too_with_or_without_the_package() -> None:
    for name in ("Order", "shop.Order", ".shop.Order"):
        assert columns(WriterSchema("protobuf", ORDER, {NAME: MONEY}, name)) == COLUMNS
    assert columns(WriterSchema("protobuf", ORDER, {NAME: MONEY}, "Order.Line")) == ["sku"]
    with pytest.raises(SchemaBroken, match="it has no message Nope; it has Other, Order"):
        columns(WriterSchema("protobuf", ORDER, {NAME: MONEY}, "Nope"))


def test_without_either_there_has_to_be_one_message_only() -> None:
    assert columns(WriterSchema("protobuf", MONEY)) == ["currency", "units"]
    with pytest.raises(SchemaBroken, match=r"--decode\.message NAME; it has Other, Order"):
        columns(WriterSchema("protobuf", ORDER, {NAME: MONEY}))


def test_descriptors_are_taken_as_texts_are_and_their_references_of_both_kinds() -> None:
    order = serialized(ORDER, {NAME: MONEY}, "shop/order.proto")
    for money in (MONEY, serialized(MONEY, {}, "registered/elsewhere.proto")):
        assert columns(WriterSchema("protobuf", order, {NAME: money}), 1) == COLUMNS


def test_a_descriptor_finds_what_everybody_has_on_this_machine() -> None:
    text = """
    syntax = "proto3";
    import "google/protobuf/timestamp.proto"; import "google/type/date.proto"; import "confluent/type/decimal.proto";
    message M { google.protobuf.Timestamp a = 1; google.type.Date b = 2; confluent.type.Decimal c = 3; }
    """
    for written in (text, serialized(text, {}, "m.proto")):
        found = CODEC.reader(WriterSchema("protobuf", written), SchemaKey(), None).schema
        assert [str(kind) for kind in found.types[:2]] == ["timestamp[us, tz=UTC]", "date32[day]"]
        assert [field.name for field in found.field("c").type] == ["value", "precision", "scale"]


@pytest.mark.parametrize(
    ("text", "references", "message"),
    [
        ("nonsense", {}, "line 1: "),
        ("", {}, "it has none"),
        ('syntax = "proto3";\nmessage M { Foo x = 1; }', {}, '"Foo" is not defined'),
        ('syntax = "proto3"; import "nope.proto"; message M {}', {}, "nope.proto: File not found"),
        ('syntax = "proto3"; message M {}', {}, "M has no fields"),
        ('syntax = "proto3"; import "../x.proto"; message M {}', {"../x.proto": MONEY}, "which no import can have"),
        ('syntax = "proto3"; import "/x.proto"; message M {}', {"/x.proto": MONEY}, "which no import can have"),
        ('syntax = "proto3"; import "x\\ny.proto"; message M { int32 a = 1; }', {}, "not found"),
    ],
)
def test_a_schema_that_does_not_compile_says_so_in_one_line(
    text: str, references: dict[str, str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SchemaBroken, match=message) as refused:
        columns(WriterSchema("protobuf", text, references))

    assert str(refused.value).isprintable()
    assert capfd.readouterr().err == ""


def test_a_text_without_a_syntax_is_proto2_and_nothing_is_said_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    written = WriterSchema("protobuf", '/* syntax = "proto3"; */ message M { required int32 a = 1; }')

    assert columns(written) == ["a"]
    assert capfd.readouterr().err == ""


def test_a_schema_that_stands_for_too_much_is_refused() -> None:
    levels = "".join(
        f"message M{level} {{ " + " ".join(f"M{level + 1} f{one} = {one};" for one in range(1, 11)) + " }"
        for level in range(8)
    )
    with pytest.raises(SchemaBroken, match="stands for more than 10000 fields"):
        columns(WriterSchema("protobuf", f'syntax = "proto3"; {levels} message M8 {{ int32 x = 1; }}', {}, "M0"))


def test_a_descriptor_that_imports_itself_is_refused() -> None:
    file = FileDescriptorProto(name="a.proto", dependency=["b.proto"], message_type=[DescriptorProto(name="M")])
    other = FileDescriptorProto(name="b.proto", dependency=["b.proto"])
    texts = [base64.b64encode(one.SerializeToString()).decode() for one in (file, other)]
    with pytest.raises(SchemaBroken, match="imports itself"):
        columns(WriterSchema("protobuf", texts[0], {"b.proto": texts[1]}))


def test_names_in_json_are_other_names_of_fields_at_any_depth() -> None:
    text = """
    syntax = "proto3";
    message M { I home_address = 1; map<string, I> all_of_them = 2; string plain = 3; string x = 4 [json_name = "y"]; }
    message I { string zip_code = 1; M back_again = 2; }
    """
    found = aliases_of(WriterSchema("protobuf", text, {}, "M"), SchemaKey())

    assert found == {
        "homeAddress": ["home_address"],
        "home_address.zipCode": ["zip_code"],
        "homeAddress.zipCode": ["zip_code"],
        "home_address.backAgain": ["back_again"],
        "homeAddress.backAgain": ["back_again"],
        "allOfThem": ["all_of_them"],
        "all_of_them.zipCode": ["zip_code"],
        "allOfThem.zipCode": ["zip_code"],
        "all_of_them.backAgain": ["back_again"],
        "allOfThem.backAgain": ["back_again"],
        "y": ["x"],
    }


@pytest.mark.parametrize("name", CONFLUENT)
def test_confluents_own_files_are_those_of_their_package(name: str) -> None:
    pytest.importorskip("confluent_kafka.schema_registry.protobuf", reason="needs the extra [registry]")
    module = name.removesuffix(".proto").replace("/", ".")
    theirs = FileDescriptorProto.FromString(
        importlib.import_module(f"confluent_kafka.schema_registry.{module}_pb2").DESCRIPTOR.serialized_pb
    )
    theirs.ClearField("options")
    ours = load(WriterSchema("protobuf", CONFLUENT[name])).files[-1]
    ours.name = name

    assert str(ours) == str(theirs)


class TestFile:
    @pytest.fixture
    def proto(self, tmp_path: Path) -> Path:
        (tmp_path / "common").mkdir()
        (tmp_path / NAME).write_text(MONEY)
        (tmp_path / "order.proto").write_text(ORDER)
        return tmp_path / "order.proto"

    def test_imports_are_found_beside_it(self, proto: Path) -> None:
        schemas = ProtoFile(proto, "Order", framed=False)

        assert columns(schemas.get(SchemaKey(5))) == COLUMNS

    def test_frames_may_say_which_message_it_is(self, proto: Path) -> None:
        schemas = ProtoFile(proto, "", framed=True)

        assert columns(schemas.get(SchemaKey()), 1) == COLUMNS
        with pytest.raises(ConfigurationError, match=r"--decode\.message NAME; it has Other, Order"):
            ProtoFile(proto, "", framed=False)

    def test_what_protoc_writes_is_taken_with_and_without_imports(self, proto: Path, tmp_path: Path) -> None:
        files = load(WriterSchema("protobuf", ORDER, {NAME: MONEY})).files
        out = tmp_path / "order.pb"
        out.write_bytes(FileDescriptorSet(file=files).SerializeToString())
        assert columns(ProtoFile(out, "Order", framed=False).get(SchemaKey())) == COLUMNS
        assert columns(ProtoFile(out, "common.Money", framed=False).get(SchemaKey())) == ["currency", "units"]
        del proto

        out.write_bytes(FileDescriptorSet(file=files[-1:]).SerializeToString())
        with pytest.raises(ConfigurationError, match=r"order\.pb: it imports common/money\.proto"):
            ProtoFile(out, "Order", framed=False)

    @pytest.mark.parametrize(
        ("name", "octets", "message"),
        [
            ("gone.proto", None, "cannot be read: No such file"),
            ("broken.proto", b"message {", "line 1: Expected message name"),
            ("latin.proto", b'// \xe9\nsyntax = "proto3";', "is not UTF-8"),
            ("x.desc", b"nonsense", "is neither a .proto file nor a FileDescriptorSet"),
            ("x.desc", b"", "has no schema in it"),
        ],
    )
    def test_what_is_no_schema_is_refused_before_anything_is_read(
        self, tmp_path: Path, name: str, octets: bytes | None, message: str
    ) -> None:
        if octets is not None:
            (tmp_path / name).write_bytes(octets)
        with pytest.raises(ConfigurationError, match=rf"--decode\.writer-schema .*{name}: {message}"):
            ProtoFile(tmp_path / name, "", framed=False)
