"""SQL as a transform: what may stand in it, what it makes, and what becomes of records that make it fail."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from structlog.testing import capture_logs

from batcher.errors import ConfigurationError
from batcher.protocols.transform import ROW
from batcher.transforms.search import FoundRows, search
from batcher.transforms.sql.transform import SqlTransform

GIVEN = pa.schema(
    [
        ("id", pa.int64()),
        ("name", pa.string()),
        ("amount", pa.decimal128(10, 2)),
        ("moment", pa.timestamp("ms", "UTC")),
        ("user", pa.struct([("id", pa.int64()), ("tags", pa.list_(pa.string()))])),
        ("text", pa.string()),
    ]
)

ROWS: list[dict[str, Any]] = [
    {"id": n, "name": f"Name {n}", "amount": Decimal(n) / 4, "user": {"id": n, "tags": ["a", f"t{n}"]}, "text": f"{n}"}
    for n in range(8)
]


def rows_of(rows: list[dict[str, Any]], schema: pa.Schema = GIVEN) -> pa.RecordBatch:
    full = schema.append(pa.field(ROW, pa.int64()))
    return pa.RecordBatch.from_pylist([{**row, ROW: n} for n, row in enumerate(rows)], full)


def made(
    select: str | None = None,
    where: str | None = None,
    rows: list[dict[str, Any]] | None = None,
    schema: pa.Schema = GIVEN,
) -> FoundRows:
    transform = SqlTransform(select, where)
    plan = transform.plan(schema)
    given = rows_of(ROWS if rows is None else rows, schema)
    found = search(plan, given, name=transform.name, where="here", most=1000)
    assert found.table.schema.equals(plan.output)
    found.table.validate(full=True)
    return found


def test_a_condition_keeps_its_rows_and_all_columns_as_they_are() -> None:
    found = made(where="amount >= 1 AND name LIKE 'Name%'")
    assert found.rows.to_pylist() == [4, 5, 6, 7]
    assert found.table.schema == GIVEN
    assert found.table["amount"].to_pylist() == [Decimal(n) / 4 for n in (4, 5, 6, 7)]


def test_a_condition_that_is_null_filters() -> None:
    assert made(where="id > 0", rows=[{"id": None}, {"id": 1}]).rows.to_pylist() == [1]


def test_columns_are_chosen_renamed_computed_and_masked() -> None:
    found = made('id, name AS title, md5(name) AS name, amount * 2 AS twice, "user".id AS user_id, user.tags[1] AS tag')
    assert found.table.schema.names == ["id", "title", "name", "twice", "user_id", "tag"]
    assert found.table.slice(3, 1).to_pylist() == [
        {
            "id": 3,
            "title": "Name 3",
            "name": hashlib.md5(b"Name 3").hexdigest(),
            "twice": Decimal("1.50"),
            "user_id": 3,
            "tag": "a",
        }
    ]


def test_a_star_leaves_out_computes_anew_and_renames() -> None:
    found = made("* EXCLUDE (text, amount) REPLACE (upper(name) AS name) RENAME (moment AS seen)")
    assert found.table.schema.names == ["id", "name", "seen", "user"]
    assert found.table["name"][1].as_py() == "NAME 1"
    assert found.table.schema.field("seen").type == pa.timestamp("ms", "UTC")


def test_what_a_list_makes_takes_the_place_of_a_field_of_its_name() -> None:
    found = made("*, upper(name) AS name, id % 2 AS odd, id")
    assert found.table.schema.names == ["amount", "moment", "user", "text", "name", "odd", "id"]
    assert found.table["name"][1].as_py() == "NAME 1"


def test_a_member_of_a_struct_has_its_own_name_and_other_expressions_need_one() -> None:
    assert made('"user".tags').table.schema.names == ["tags"]
    with pytest.raises(ConfigurationError, match=r"--transform.select: upper\(\"?name\"?\) needs a name: … AS name"):
        SqlTransform("upper(name)", None)


def test_lambdas_json_and_lists_of_comprehension_are_evaluated() -> None:
    schema = pa.schema([("tags", pa.list_(pa.string())), ("x", pa.int64()), ("doc", pa.string())])
    rows = [{"tags": ["a", "b"], "x": 1, "doc": '{"k": {"v": 7}}'}]
    found = made(
        "list_transform(tags, lambda x: upper(x)) AS up, [t || 'y' FOR t IN tags] AS y, doc->>'$.k.v' AS v, "
        "doc->'k' AS k, list_filter(tags, lambda t, i: i > x) AS later",
        rows=rows,
        schema=schema,
    )
    assert found.table.to_pylist() == [{"up": ["A", "B"], "y": ["ay", "by"], "v": "7", "k": '{"v":7}', "later": ["b"]}]


def test_names_mean_fields_however_they_are_written_unless_two_differ_by_case_only() -> None:
    assert made("ID, NAME AS n").table.schema.names == ["id", "n"]
    twins = pa.schema([("a", pa.int64()), ("A", pa.int64())])
    assert made('a + 1 AS b, "A" AS c', rows=[{"a": 1, "A": 5}], schema=twins).table.to_pylist() == [{"b": 2, "c": 5}]
    other = pa.schema([("aB", pa.int64()), ("AB", pa.int64())])
    with pytest.raises(ConfigurationError, match="ab may be aB or AB"):
        made("ab AS x", rows=[{}], schema=other)


def test_a_row_that_fails_is_found_whatever_the_others_are_and_told_without_its_value() -> None:
    rows = [{**row, "text": "secret" if row["id"] in (2, 5) else row["text"]} for row in ROWS]
    found = made("id, CAST(text AS INTEGER) AS number, text || '!' AS loud", rows=rows)
    assert found.rows.to_pylist() == [0, 1, 3, 4, 6, 7]
    assert [(one.position, one.reason, one.path) for one in found.rejections] == [
        (2, "transform", "number"),
        (5, "transform", "number"),
    ]
    assert "secret" not in found.rejections[0].message
    assert found.rejections[0].message.startswith("field number: its expression in --transform.select fails")
    for number, row in enumerate(rows):
        alone = made("id, CAST(text AS INTEGER) AS number, text || '!' AS loud", rows=[row])
        assert [one.message for one in alone.rejections] == [
            one.message for one in found.rejections if one.position == number
        ]


def test_a_condition_that_fails_refuses_and_an_expression_of_a_row_that_is_filtered_does_not() -> None:
    rows = [{**row, "text": "x" if row["id"] in (2, 5) else row["text"]} for row in ROWS]
    failing = made(where="text::INTEGER < 4", rows=rows)
    assert (failing.rows.to_pylist(), [one.position for one in failing.rejections]) == ([0, 1, 3], [2, 5])
    filtering = made("text::INTEGER AS n", "text <> 'x'", rows=rows)
    assert (filtering.rows.to_pylist(), filtering.rejections) == ([0, 1, 3, 4, 6, 7], ())


def test_many_rows_that_fail_take_a_few_queries() -> None:
    rows = [{"text": "x" if n % 3 else f"{n}"} for n in range(3000)]
    found = made("text::INTEGER AS n", rows=rows, schema=pa.schema([("text", pa.string())]))
    assert (len(found.rows), len(found.rejections)) == (1000, 2000)


@pytest.mark.parametrize(
    ("select", "word"),
    [
        ("now() AS t", "now cannot be used: it is not the same in each run"),
        ("current_date AS d", "current_date is no field of the records, and as a value of the session"),
        ("random() AS r", "random cannot be used: it is not the same"),
        ("uuid() AS r", "uuid cannot be used: it is not the same"),
        ("nextval('s') AS r", "nextval cannot be used"),
        ("current_setting('threads') AS r", "current_setting cannot be used"),
        ("ago(INTERVAL 1 DAY) AS r", "ago cannot be used: it is (made of|no function)"),
        ("age(moment) AS r", "age of one time cannot be used"),
        ("sum(id) AS s", "sum cannot be used: it is an aggregate"),
        ("count(*) AS s", "cannot be used"),
        ("any_value(id) AS s", "any_value cannot be used: it is an aggregate"),
        ("row_number() OVER () AS s", "a window function"),
        ("lag(id) OVER (ORDER BY id) AS s", "a window function"),
        ('unnest("user".tags) AS t', "unnest cannot be used: it makes several rows"),
        ("(SELECT 1) AS s", "a subquery cannot be used"),
        ("id IN (SELECT 1) AS s", "a subquery cannot be used"),
        ("exists(SELECT 1) AS s", "a subquery cannot be used"),
        ("id FROM read_csv('/etc/passwd')", "FROM cannot be used"),
        ("id FROM '/etc/passwd'", "FROM cannot be used"),
        ("read_text('/etc/passwd') AS t", "read_text cannot be used: it makes several rows, or reads"),
        ("id WHERE id > 1", "a condition goes to --transform.where"),
        ("id ORDER BY id", "ORDER BY cannot be used"),
        ("id LIMIT 1", "LIMIT cannot be used"),
        ("DISTINCT id", "DISTINCT cannot be used"),
        ("id GROUP BY ALL", "GROUP BY"),
        ("id QUALIFY 1 = 1", "GROUP BY"),
        ("id UNION SELECT 1", "not a whole query"),
        ("id; DROP TABLE x", "error"),
        ("id; SELECT 2", "without a semicolon"),
        ("id +", "syntax error"),
        ("$1 AS p", "a parameter"),
        ("#1 AS p", "the number of a column"),
        ("COLUMNS('a.*')", r"COLUMNS\(…\) cannot be used"),
        ("given.*", r"\* takes no name before it"),
        ("nosuch(id) AS n", "nosuch cannot be used: it is no function"),
        ("getvariable('x') AS n", "getvariable cannot be used"),
        ("id, id", "the column id is there twice"),
        ("*, *", "the column id is there twice"),
        ("upper(id, id) AS n", "--transform.select: column n: Binder Error"),
        ("id::nosuch AS n", "--transform.select: column n: "),
        ("name::INTERVAL AS n", "column n is month_day_nano_interval, which no target takes; cast it"),
        ("idd AS n", "no record has a field idd, did you mean id?"),
        ("_row AS n", "no record has a field _row"),
        ('* EXCLUDE (id, name, amount, moment, "user", text)', "leaves no column"),
    ],
)
def test_sql_that_cannot_stand_between_a_record_and_its_row_is_refused_with_the_reason(select: str, word: str) -> None:
    def planned() -> None:
        transform = SqlTransform(select, None)
        transform.inferred(None, GIVEN)
        transform.plan(GIVEN)

    with pytest.raises(ConfigurationError, match=word) as caught:
        planned()
    assert str(caught.value).startswith("--transform.select")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("where", "word"),
    [
        ("id > 1 ORDER BY id", "ORDER BY cannot be used"),
        ("id > 1) -- ", "error"),
        ("id > 1; SELECT 1", "without a semicolon"),
        ("id > (SELECT 1)", "a subquery"),
        ("moment > now()", "now cannot be used"),
        ("id", "nothing"),
        ("name", "nothing"),
        ("name > 5", "Binder Error|Conversion"),
        ("", "error"),
    ],
)
def test_a_condition_is_one_and_nothing_else(where: str, word: str) -> None:
    if word == "nothing":
        SqlTransform(None, where).plan(GIVEN)
        return
    with pytest.raises(ConfigurationError, match=word) as caught:
        SqlTransform(None, where).plan(GIVEN)
    assert str(caught.value).startswith("--transform.where")


def test_comments_hide_nothing() -> None:
    assert made("id -- , name\n", "id > 5 -- or true").rows.to_pylist() == [6, 7]


def test_times_come_back_in_utc() -> None:
    found = made(
        "moment + INTERVAL 1 DAY AS later, [moment] AS list, {'t': moment} AS s, moment::DATE AS day",
        rows=[{"moment": 0}],
    )
    kinds = found.table.schema
    assert kinds.field("later").type == pa.timestamp("us", "UTC")
    assert kinds.field("list").type == pa.list_(pa.timestamp("us", "UTC"))
    assert kinds.field("s").type == pa.struct([("t", pa.timestamp("us", "UTC"))])
    assert str(found.table["day"][0]) == "1970-01-01"


def test_an_enum_a_uuid_and_a_large_integer_are_what_they_mean() -> None:
    found = made(
        "'a'::ENUM('a', 'b') AS e, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::UUID AS u, 9::HUGEINT AS h",
        rows=[{}],
    )
    assert found.table.schema.types == [pa.string(), pa.string(), pa.decimal128(38, 0)]
    assert found.table["u"][0].as_py() == "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"


def test_fields_that_pass_unchanged_have_the_types_of_their_columns() -> None:
    target = pa.schema(
        [
            pa.field("amount", pa.decimal128(12, 4), nullable=False, metadata={b"k": b"v"}),
            pa.field("title", pa.binary()),
            pa.field("id", pa.uint8()),
        ]
    )
    found = pa.schema([("amount", pa.float64()), ("name", pa.string()), ("id", pa.int64()), ("other", pa.int64())])
    hinted = SqlTransform("amount, name AS title, id + 1 AS id, other", None).inferred(target, found)
    assert hinted == pa.schema(
        [("amount", pa.decimal128(12, 4)), ("name", pa.binary()), ("id", pa.int64()), ("other", pa.int64())]
    )
    assert hinted.field("amount").metadata == {b"k": b"v"}
    both = SqlTransform("amount, amount AS title", None).inferred(target, found)
    assert both.field("amount").type == pa.float64()
    assert SqlTransform(None, "id > 1").inferred(target, found).field("id").type == pa.uint8()


def test_a_field_that_is_named_and_not_there_yet_is_null_and_told_once() -> None:
    transform = SqlTransform("id, coalesce(coupon, 'none') AS coupon, namee AS n", None)
    with capture_logs() as logs:
        first = transform.inferred(None, GIVEN)
        transform.inferred(None, GIVEN)
    assert first.field("coupon").type == pa.null()
    assert [one["field"] for one in logs] == ["coupon", "namee"]
    assert "did you mean name?" in logs[1]["hint"]
    plan = transform.plan(first)
    found = search(plan, rows_of([{"id": 1}], first), name="n", where="here", most=1)
    assert found.table.to_pylist() == [{"id": 1, "coupon": "none", "n": None}]
    assert plan.output.types == [pa.int64(), pa.string(), pa.null()]
    with pytest.raises(ConfigurationError, match="no record has a field namee"):
        SqlTransform(None, "namee > 1").inferred(None, GIVEN)


def test_a_type_that_hangs_on_a_field_without_one_is_not_proposed() -> None:
    given = pa.schema([("id", pa.int64()), ("n", pa.null())])
    plan = SqlTransform("id, n, n * 2 AS twice, n IS NULL AS none", None).plan(given)
    assert plan.proposed.types == [pa.int64(), pa.null(), pa.null(), pa.bool_()]
    assert SqlTransform("id, upper(n) AS up", None).plan(given).proposed.types == [pa.int64(), pa.string()]


def test_a_field_that_may_be_dropped_is_expected() -> None:
    found = SqlTransform("* EXCLUDE (password)", None).inferred(None, pa.schema([("id", pa.int64())]))
    assert found.names == ["id", "password"]


def test_a_value_of_the_session_may_be_the_name_of_a_field() -> None:
    assert made('"user".id AS u').rows.to_pylist() == list(range(8))
    with pytest.raises(ConfigurationError, match="user is no field of the records, and as a value of the session"):
        SqlTransform("id, user AS u", None).inferred(None, pa.schema([("id", pa.int64())]))


def test_coordinates_are_asked_for_where_they_are_named() -> None:
    transform = SqlTransform("*, _offset AS position, _topic || '/' || _partition AS place", "_timestamp IS NOT NULL")
    assert transform.coordinates == ("_topic", "_partition", "_offset", "_timestamp")
    assert SqlTransform(None, "id > 1").coordinates == ()
    plan = transform.plan(pa.schema([("id", pa.int64())]))
    assert plan.output.names == ["id", "position", "place"]
    assert plan.output.field("position").type == pa.int64()


def test_nothing_outside_is_reached() -> None:
    from batcher.transforms.sql.engine import connected

    with connected() as connection:
        for query in (
            "SELECT * FROM read_csv('/etc/passwd')", "ATTACH '/tmp/x.db'", "INSTALL httpfs", "SET threads = 8",
            "COPY (SELECT 1) TO '/tmp/x.csv'", "SELECT * FROM '/etc/passwd'",
        ):  # fmt: skip
            with pytest.raises(Exception, match=r"disabled|locked|does not exist"):
                connection.sql(query).fetchall()
        assert connection.sql("SELECT current_setting('threads')").fetchall() == [(2,)]


def test_filtered_rows_of_an_upside_down_world_keep_their_columns() -> None:
    found = made("id, id % 2 AS odd", "id % 3 = 1")
    assert found.table.to_pylist() == [{"id": n, "odd": n % 2} for n in (1, 4, 7)]
    assert pc.all(pc.equal(found.table["id"], pa.chunked_array([found.rows]))).as_py()
