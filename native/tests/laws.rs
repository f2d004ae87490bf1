//! The laws of decoding, held against any bytes at all. The fuzz target uses the same.

use batcher_native::arrow::{Binary, Exported};
use batcher_native::batch;
use batcher_native::column::{Column, Object, Takes, Values};
use batcher_native::decode::{Limits, OnUnknown, Reader};
use batcher_native::plan::{Field, Planner};

fn field(name: &str, kind: &str, numbers: &[i64], inner: Vec<Field>) -> Field {
    Field(name.into(), name.into(), name != "id", kind.into(), numbers.to_vec(), inner)
}

/// A reader of a schema with a column of every type.
pub fn reader(on_unknown: OnUnknown, insensitive: bool) -> Reader {
    let fields = vec![
        field("id", "int", &[64], vec![]),
        field("small", "int", &[8], vec![]),
        field("big", "uint", &[64], vec![]),
        field("ratio", "float", &[64], vec![]),
        field("single", "float", &[32], vec![]),
        field("ok", "bool", &[], vec![]),
        field("price", "decimal", &[12, 2, 128], vec![]),
        field("wide", "decimal", &[60, 9, 256], vec![]),
        field("day", "date", &[], vec![]),
        field("at", "time", &[3, -1], vec![]),
        field("at_ns", "time", &[9, 6], vec![]),
        field("text", "text", &[0], vec![]),
        field("any", "any", &[1], vec![]),
        field("doc", "json", &[0], vec![]),
        field("nothing", "null", &[], vec![]),
        field("tags", "list", &[], vec![field("item", "text", &[0], vec![])]),
        field(
            "labels",
            "map",
            &[],
            vec![
                field("key", "text", &[0], vec![]),
                field("value", "struct", &[], vec![field("n", "int", &[16], vec![])]),
            ],
        ),
        field(
            "geo",
            "struct",
            &[],
            vec![
                field("id", "float", &[64], vec![]),
                field("more", "list", &[], vec![field("x", "json", &[0], vec![])]),
            ],
        ),
    ];
    let mut planner = Planner { insensitive, objects: vec![], times: vec![] };
    let root = planner.object("", fields).unwrap();
    Reader::new(root, Limits { max_bytes: 1 << 16, max_depth: 16, on_unknown })
}

/// Panic unless a column is one: as many values as it says, ends that ascend, text that is UTF-8, nulls that are marked.
fn check(column: &Column) {
    let len = column.len;
    let ends_of = |ends: &[i32]| {
        assert_eq!(ends.len(), len + 1);
        assert!(ends[0] == 0 && ends.windows(2).all(|pair| pair[0] <= pair[1]));
        ends[len] as usize
    };
    match &column.values {
        Values::Null => {}
        Values::Bool(bits) => assert_eq!(bits.len, len),
        Values::I8(values) => assert_eq!(values.len(), len),
        Values::I16(values) => assert_eq!(values.len(), len),
        Values::I32(values) | Values::Date(values) => assert_eq!(values.len(), len),
        Values::I64(values) | Values::Time { values, .. } => assert_eq!(values.len(), len),
        Values::U8(values) => assert_eq!(values.len(), len),
        Values::U16(values) => assert_eq!(values.len(), len),
        Values::U32(values) => assert_eq!(values.len(), len),
        Values::U64(values) => assert_eq!(values.len(), len),
        Values::F32(values) => assert!(values.len() == len && values.iter().all(|value| value.is_finite())),
        Values::F64(values) => assert!(values.len() == len && values.iter().all(|value| value.is_finite())),
        Values::Decimal { values, .. } => assert_eq!(values.len(), len),
        Values::WideDecimal { values, .. } => assert_eq!(values.len(), len),
        Values::Text { ends, bytes, .. } => {
            assert_eq!(ends_of(ends), bytes.len());
            for pair in ends.windows(2) {
                assert!(std::str::from_utf8(&bytes[pair[0] as usize..pair[1] as usize]).is_ok());
            }
        }
        Values::List { ends, items } => {
            assert_eq!(ends_of(ends), items.len);
            check(items);
        }
        Values::Map { ends, keys, values } => {
            assert_eq!((ends_of(ends), keys.len, keys.nulls), (values.len, values.len, 0));
            check(keys);
            check(values);
        }
        Values::Struct(object) => {
            assert_eq!(object.len, len);
            check_object(object);
        }
    }
    let nulls = (0..len).filter(|row| column.validity.as_ref().is_some_and(|bits| !bits.get(*row))).count();
    assert_eq!((nulls, column.validity.as_ref().map_or(len, |bits| bits.len)), (column.nulls, len));
    assert!(column.nullable || nulls == 0);
}

fn check_object(object: &Object) {
    for column in &object.columns {
        assert_eq!(column.len, object.len);
        check(column);
    }
}

/// Write one value of a column, so that two can be compared.
fn shown(column: &Column, row: usize) -> String {
    if column.validity.as_ref().is_some_and(|bits| !bits.get(row)) {
        return "null".into();
    }
    let range = |ends: &[i32]| ends[row] as usize..ends[row + 1] as usize;
    match &column.values {
        Values::Null => "nothing".into(),
        Values::Bool(bits) => bits.get(row).to_string(),
        Values::I8(values) => values[row].to_string(),
        Values::I16(values) => values[row].to_string(),
        Values::I32(values) | Values::Date(values) => values[row].to_string(),
        Values::I64(values) | Values::Time { values, .. } => values[row].to_string(),
        Values::U8(values) => values[row].to_string(),
        Values::U16(values) => values[row].to_string(),
        Values::U32(values) => values[row].to_string(),
        Values::U64(values) => values[row].to_string(),
        Values::F32(values) => format!("{:x}", values[row].to_bits()),
        Values::F64(values) => format!("{:x}", values[row].to_bits()),
        Values::Decimal { values, .. } => values[row].to_string(),
        Values::WideDecimal { values, .. } => format!("{:?}", values[row]),
        Values::Text { ends, bytes, .. } => String::from_utf8_lossy(&bytes[range(ends)]).into_owned(),
        Values::List { ends, items } => format!("{:?}", range(ends).map(|at| shown(items, at)).collect::<Vec<_>>()),
        Values::Map { ends, keys, values } => {
            format!("{:?}", range(ends).map(|at| (shown(keys, at), shown(values, at))).collect::<Vec<_>>())
        }
        Values::Struct(object) => format!("{:?}", row_of(object, row)),
    }
}

fn row_of(object: &Object, row: usize) -> Vec<String> {
    object.columns.iter().map(|column| shown(column, row)).collect()
}

/// Hold all laws against messages, which a zero byte separates.
pub fn hold(data: &[u8]) {
    for (on_unknown, insensitive) in [(OnUnknown::Count, false), (OnUnknown::Suspect, true)] {
        let mut ends = vec![0];
        let mut joined = Vec::new();
        for message in data.split(|byte| *byte == 0) {
            joined.extend_from_slice(message);
            ends.push(joined.len() as i32);
        }
        let mut together = reader(on_unknown, insensitive);
        let places = batch::read(&mut together, &[Binary::new(&ends, &joined)]).unwrap();
        check_object(&together.root);
        assert_eq!(places.rows.len(), together.root.len);
        assert_eq!(places.rows.len() + places.aside.len(), ends.len() - 1);
        for field in together.unknown.take() {
            assert!(field.records <= places.rows.len() && places.rows.contains(&(field.first as i64)));
        }
        let mut alone = reader(on_unknown, insensitive);
        for (number, pair) in ends.windows(2).enumerate() {
            // In a buffer of its own, with nothing behind it.
            let message: Box<[u8]> = joined[pair[0] as usize..pair[1] as usize].into();
            let before = alone.root.len;
            let passed = alone.read(&message, message.len(), number).is_ok();
            // Row by row, where the others are brought to their length at the end.
            alone.root.finish();
            let row = places.rows.binary_search(&(number as i64));
            assert_eq!(passed, row.is_ok());
            assert_eq!(alone.root.len, before + passed as usize);
            if let Ok(row) = row {
                assert_eq!(row_of(&alone.root, before), row_of(&together.root, row));
                let text = std::str::from_utf8(&message).expect("what is accepted is UTF-8");
                assert!(text.trim_matches([' ', '\t', '\r', '\n']).starts_with('{'));
            }
        }
        check_object(&alone.root);
        drop(Exported::columns(&mut together.root));
        check_object(&together.root);
    }
}

/// A record with a value in every column.
pub const RECORD: &str = r#"{"id":1,"small":-5,"big":18446744073709551615,"ratio":0.25,"single":1.5,"ok":true,"price":"12.50",
"wide":123456789012345678901234567890.5,"day":"2024-02-29","at":"2024-05-06T07:08:09.123Z","at_ns":1714979280000000,
"text":"a string of more than sixteen bytes \u00e9","any":[1, 2],"doc":{"a":[1,{"b":null}],"c":"\n"},"nothing":null,
"tags":["a",null,"b"],"labels":{"a":{"n":1},"b":{"x":true}},"geo":{"id":1e2,"more":[1,"x"]},"new":[{"deep":[]}]}"#;

#[test]
fn a_record_of_every_type_is_a_row() {
    let mut reader = reader(OnUnknown::Count, false);
    assert!(reader.read(RECORD.as_bytes(), RECORD.len(), 0).is_ok());
    reader.root.finish();
    check_object(&reader.root);
    let unknown = reader.unknown.take();
    assert_eq!(unknown.iter().map(|field| &*field.name).collect::<Vec<_>>(), [&b"x"[..], b"new"]);
    assert!(
        reader
            .root
            .columns
            .iter()
            .all(|column| column.nulls == (column.nullable && matches!(column.values, Values::Null)) as usize)
    );
    assert!(matches!(reader.root.columns[12].values, Values::Text { takes: Takes::Any, .. }));
}

#[test]
fn every_cut_and_every_changed_byte_of_a_record_leaves_the_columns_whole() {
    let step = if cfg!(miri) { 97 } else { 1 };
    let mut messages = Vec::new();
    for at in (0..RECORD.len()).step_by(step) {
        let (head, tail) = RECORD.as_bytes().split_at(at);
        messages.push(head.to_vec());
        messages.push(tail.to_vec());
        for byte in [b'"', b'\\', b'}', b']', b',', b'9', b'e', b'-', b' ', b'n', 0x80, 0x1f] {
            messages.push([head, &[byte], &tail[1..]].concat());
            messages.push([head, &[byte], tail].concat());
        }
    }
    hold(&messages.join(&0));
}

#[test]
fn what_is_not_plainly_right_is_left_and_nothing_of_it_stays() {
    let messages = [
        r#"{"id":1,"id":2}"#,
        r#"{"id":1,"\u0069d":2}"#,
        r#"{"id":1,"labels":{"a":{},"a":{}}}"#,
        r#"{"id":1,"doc":{"a":1,"a":1}}"#,
        r#"{"id":1,"geo":{"id":1,"id":1}}"#,
        r#"{"id":1}{"id":1}"#,
        r#"{"id":1},"#,
        r#"{"id":1,}"#,
        r#"{"id":null}"#,
        r#"{"text":"no id"}"#,
        r#"{"id":01}"#,
        r#"{"id":1,"ratio":9007199254740993}"#,
        r#"{"id":1,"price":1.255}"#,
        r#"{"id":1,"text":"\ud800"}"#,
        r#"{"id":1,"new":"\ud800"}"#,
        r#"{"id":1,"new":[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]}"#,
        r#"{"id":1,"nothing":0}"#,
        "",
        "[]",
    ];
    for message in messages {
        let mut reader = reader(OnUnknown::Skip, false);
        assert!(reader.read(RECORD.as_bytes(), RECORD.len(), 0).is_ok());
        reader.root.finish();
        let before = row_of(&reader.root, 0);
        assert!(reader.read(message.as_bytes(), message.len(), 1).is_err(), "{message}");
        check_object(&reader.root);
        assert_eq!((reader.root.len, row_of(&reader.root, 0)), (1, before));
    }
    hold(messages.join("\0").as_bytes());
}
