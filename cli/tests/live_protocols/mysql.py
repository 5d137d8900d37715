"""MariaDB through the MariaDB connector's C library (MySQLdb): compressed or encrypted. Arguments: port, mode."""

import sys

import MySQLdb

from counting import did, report

port, mode = int(sys.argv[1]), sys.argv[2]
options = {"compress": True} if mode == "compressed" else {"ssl": {"cipher": "DEFAULT"}}
for n in range(3):
    connection = MySQLdb.connect(host="127.0.0.1", port=port, user="root", autocommit=True, **options)
    cursor = connection.cursor()
    cursor.execute("SHOW STATUS LIKE 'Ssl_version'")
    version = cursor.fetchone()[1]
    assert version.startswith("TLS") == (mode == "tls"), version
    for statement, code in (
        ("SELECT 1", 0),
        ("SELECT REPEAT('x', 300000)", 0),
        ("SELEKT 1", 1064),
        ("SELECT * FROM truth.missing", 1146),
        ("SELECT * FROM truth.words WHERE id < 100", 0),
        ("INSERT INTO truth.words VALUES (1, 1, 'again')", 1062),
    ):
        try:
            cursor.execute(statement)
            assert code == 0, statement
        except MySQLdb.Error as error:
            assert error.args[0] == code, error
            did("query", str(code))
    connection.close()
report()
