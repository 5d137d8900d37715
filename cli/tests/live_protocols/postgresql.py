"""PostgreSQL through libpq's simple and extended queries (psycopg2, psycopg) and asyncpg's own. Arguments: port, and
"plain" or "tls"."""

import asyncio
import sys

import asyncpg
import psycopg
import psycopg2

from counting import did, report

port, mode = int(sys.argv[1]), sys.argv[2]
server = dict(host="127.0.0.1", port=port, user="postgres")


def simple():
    connection = psycopg2.connect(dbname="postgres", sslmode="disable", **server)
    connection.autocommit = True
    cursor = connection.cursor()

    def ask(text, code="ok"):
        try:
            cursor.execute(text)
        except psycopg2.Error as error:
            assert error.pgcode == code, (text, error.pgcode)
        else:
            assert code == "ok", text
        did("query", code)

    ask("CREATE TABLE items (id int PRIMARY KEY, name text, amount numeric)")
    for n in range(50):
        ask(f"INSERT INTO items VALUES ({n}, 'item {n}', {n}.5)")
    for n in range(30):
        ask(f"SELECT * FROM items WHERE id < {n}")
        assert len(cursor.fetchall()) == n
    ask("UPDATE items SET amount = amount + 1 WHERE id % 2 = 0")
    ask("DELETE FROM items WHERE id >= 45")
    ask("SELECT repeat('x', 300000)")
    ask("SELECT * FROM missing", "42P01")
    ask("SELEKT 1", "42601")
    ask("SELECT 1 / 0", "22012")
    ask("INSERT INTO items VALUES (1, 'again', 0)", "23505")
    ask("SET statement_timeout = '100ms'")
    ask("SELECT pg_sleep(30)", "57014")
    ask("RESET statement_timeout")
    connection.autocommit = False
    # libpq's wrapper opens the transaction by a query of its own.
    did("query")
    ask("INSERT INTO items VALUES (100, 'in a transaction', 1)")
    ask("SELECT no_such_column FROM items", "42703")
    ask("SELECT 1", "25P02")
    connection.rollback()
    did("query")
    connection.close()


def extended():
    connection = psycopg.connect(dbname="postgres", sslmode="disable", autocommit=True, **server)

    def ask(text, parameters, code="ok", **options):
        try:
            rows = connection.execute(text, parameters, **options)
        except psycopg.Error as error:
            assert error.sqlstate == code, (text, error.sqlstate)
        else:
            assert code == "ok", text
            rows = rows.fetchall() if rows.description else []
        did("execute", code)
        return rows if code == "ok" else None

    for n in range(20):
        assert len(ask("SELECT id, name FROM items WHERE id < %s", (n,), prepare=False)) == n
        assert len(ask("SELECT name FROM items WHERE id = %s", (n,), prepare=True)) == 1
    ask("SELECT * FROM nowhere WHERE a = %s", (1,), "42P01", prepare=False)
    ask("SELECT 1 / %s::int", (0,), "22012", prepare=False)
    ask("INSERT INTO items VALUES (%s, 'twice', 0)", (1,), "23505", prepare=True)
    # COPY is a simple query.
    with connection.cursor().copy("COPY items (id, name) FROM STDIN") as copy:
        for n in range(500, 600):
            copy.write_row((n, f"copied {n}"))
    did("query")
    with connection.cursor().copy("COPY items TO STDOUT") as copy:
        assert len(list(copy.rows())) == 145
    did("query")
    connection.close()


async def prepared():
    connection = await asyncpg.connect(database="postgres", ssl=False, **server)
    statement = await connection.prepare("SELECT id, name FROM items WHERE id < $1")
    for n in range(25):
        assert len(await statement.fetch(n)) == n
        did("execute")
    await connection.executemany("UPDATE items SET name = $2 WHERE id = $1", [(n, f"new {n}") for n in range(10)])
    did("execute", times=10)
    assert await connection.execute("UPDATE items SET amount = 0 WHERE id < 7") == "UPDATE 7"
    did("query")
    try:
        await connection.fetch("SELECT * FROM elsewhere WHERE id = $1", 1)
    except asyncpg.UndefinedTableError:
        did("parse", "42P01")
    try:
        await connection.fetch("SELECT 10 / $1::int", 0)
    except asyncpg.DivisionByZeroError:
        did("execute", "22012")
    await connection.close()


def encrypted():
    for n in range(3):
        with psycopg.connect(dbname="postgres", sslmode="require", **server) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
            assert connection.pgconn.ssl_in_use


if mode == "tls":
    encrypted()
else:
    simple()
    extended()
    asyncio.run(prepared())
report()
