//! A small MySQL client over a plain socket, and a MariaDB server with its general log.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Counts, Server, find_program, free_port};

pub struct MariaDb {
    pub server: Server,
    log: PathBuf,
}

impl MariaDb {
    /// A server whose root has no password, with an empty database `truth`.
    pub fn start(folder: &Path) -> Self {
        Self::start_with(folder, &[])
    }

    /// The same with options of the server.
    pub fn start_with(folder: &Path, options: &[&str]) -> Self {
        let port = free_port();
        let data = folder.join("mariadb");
        std::fs::create_dir(&data).unwrap();
        let data_option = format!("--datadir={}", data.display());
        let installed = Command::new(find_program("mariadb-install-db").unwrap())
            .args(["--no-defaults", "--user=root", "--skip-test-db", "--auth-root-authentication-method=normal"])
            .arg(&data_option)
            .output()
            .unwrap();
        assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
        let log = folder.join("general.log");
        let mut command = Command::new(find_program("mariadbd").unwrap());
        command
            .args(["--no-defaults", "--user=root", "--bind-address=127.0.0.1", "--skip-name-resolve"])
            .args(["--innodb-flush-log-at-trx-commit=0", "--sync-binlog=0", "--innodb-buffer-pool-size=64M"])
            .args(["--innodb-log-file-size=16M", "--performance-schema=OFF", "--general-log=1"])
            .args(options)
            .arg(&data_option)
            .arg(format!("--port={port}"))
            .arg(format!("--socket={}", data.join("socket").display()))
            .arg(format!("--general-log-file={}", log.display()));
        let server = Server::start("mariadbd", port, &folder.join("mariadb.log"), &mut command);
        let mut client = MySql::connect(port);
        client.query("CREATE DATABASE truth");
        client.quit();
        Self { server, log }
    }

    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// Size of the general log, to be given to [`MariaDb::count`].
    pub fn log_bytes(&self) -> u64 {
        std::fs::metadata(&self.log).map_or(0, |metadata| metadata.len())
    }

    /// Commands logged behind `from`, under KFR's names. `Connect` is a login and no command.
    pub fn count(&self, from: u64) -> Counts {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let mut counts = Counts::new();
        for line in String::from_utf8_lossy(&text[from as usize..]).lines() {
            // "TIME<tab>   12 Query<tab>SELECT 1", or two tabs instead of the time.
            let Some(field) = line.split('\t').find(|field| {
                field.trim_start().starts_with(|c: char| c.is_ascii_digit())
                    && field.contains(' ')
                    && !field.contains(':')
            }) else {
                continue;
            };
            let Some((_, command)) = field.trim_start().split_once(' ') else { continue };
            let name = match command {
                "Query" => "query",
                "Prepare" => "prepare",
                "Execute" => "execute",
                "Quit" => "quit",
                "Close stmt" => "close",
                "Init DB" => "init_db",
                "Ping" => "ping",
                "Reset stmt" => "reset",
                "Field List" => "field_list",
                "Statistics" => "statistics",
                "Connect" => continue,
                other => other,
            };
            *counts.entry(name.to_string()).or_default() += 1;
        }
        counts
    }
}

/// One connection.
pub struct MySql {
    stream: BufReader<TcpStream>,
}

/// What a command came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Ok,
    Error(u16),
    Rows(usize),
}

/// A statement prepared on the server.
pub struct Prepared {
    id: u32,
}

impl MySql {
    /// Connects as root, without a database (CLIENT_PROTOCOL_41, SECURE_CONNECTION, PLUGIN_AUTH, MULTI_RESULTS).
    pub fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut client = Self { stream: BufReader::with_capacity(64 << 10, stream) };
        client.packet();
        let capabilities: u32 = 1 | 0x200 | 0x8000 | 0x0002_0000 | 0x0008_0000;
        let mut login = capabilities.to_le_bytes().to_vec();
        login.extend_from_slice(&(16u32 << 20).to_le_bytes());
        login.push(33);
        login.extend_from_slice(&[0; 23]);
        login.extend_from_slice(b"root\0\0mysql_native_password\0");
        client.send(1, &login);
        assert_eq!(client.packet()[0], 0, "login refused");
        client
    }

    fn send(&mut self, sequence: u8, payload: &[u8]) {
        let mut packet = (payload.len() as u32).to_le_bytes()[..3].to_vec();
        packet.push(sequence);
        packet.extend_from_slice(payload);
        self.stream.get_mut().write_all(&packet).unwrap();
    }

    fn command(&mut self, byte: u8, rest: &[u8]) {
        self.send(0, &[&[byte], rest].concat());
    }

    fn packet(&mut self) -> Vec<u8> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head).unwrap();
        let mut payload = vec![0; u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize];
        self.stream.read_exact(&mut payload).unwrap();
        payload
    }

    fn result(&mut self) -> Answer {
        let first = self.packet();
        match first[0] {
            0 => Answer::Ok,
            0xff => Answer::Error(u16::from_le_bytes([first[1], first[2]])),
            _ => {
                self.until_eof();
                Answer::Rows(self.until_eof())
            }
        }
    }

    fn until_eof(&mut self) -> usize {
        let mut count = 0;
        loop {
            let packet = self.packet();
            if packet[0] == 0xfe && packet.len() < 9 {
                return count;
            }
            count += 1;
        }
    }

    pub fn query(&mut self, sql: &str) -> Answer {
        self.command(3, sql.as_bytes());
        self.result()
    }

    pub fn use_database(&mut self, name: &str) -> Answer {
        self.command(2, name.as_bytes());
        self.result()
    }

    pub fn ping(&mut self) -> Answer {
        self.command(14, &[]);
        self.result()
    }

    pub fn prepare(&mut self, sql: &str) -> Prepared {
        self.command(22, sql.as_bytes());
        let answer = self.packet();
        assert_eq!(answer[0], 0, "not prepared: {}", String::from_utf8_lossy(&answer));
        let [columns, parameters] = [5, 7].map(|at| u16::from_le_bytes([answer[at], answer[at + 1]]));
        for _ in [columns, parameters].iter().filter(|count| **count > 0) {
            self.until_eof();
        }
        Prepared { id: u32::from_le_bytes([answer[1], answer[2], answer[3], answer[4]]) }
    }

    /// Executes with one number as parameter.
    pub fn execute(&mut self, statement: &Prepared, parameter: i64) -> Answer {
        let mut rest = statement.id.to_le_bytes().to_vec();
        rest.extend_from_slice(&[0, 1, 0, 0, 0, 0, 1, 8, 0]);
        rest.extend_from_slice(&parameter.to_le_bytes());
        self.command(23, &rest);
        self.result()
    }

    pub fn close(&mut self, statement: &Prepared) {
        self.command(25, &statement.id.to_le_bytes());
    }

    pub fn quit(mut self) {
        self.command(1, &[]);
        // The server closes after it has logged.
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest);
    }

    /// Commands of several kinds, some of which fail. Needs the table of [`create`].
    pub fn mix(&mut self, statement: &Prepared, round: usize) {
        assert_eq!(self.query("SELECT 1"), Answer::Rows(1));
        assert_eq!(self.query("SELEKT 1"), Answer::Error(1064));
        assert_eq!(self.query("SELECT * FROM truth.missing"), Answer::Error(1146));
        assert_eq!(
            self.query(&format!("SELECT * FROM truth.words WHERE id < {}", round % 300)),
            Answer::Rows(round % 300)
        );
        assert_eq!(self.query(&format!("UPDATE truth.words SET n = n + 1 WHERE id = {}", round % 300)), Answer::Ok);
        assert_eq!(self.execute(statement, (round % 300) as i64), Answer::Rows(300 - round % 300 - 1));
        assert_eq!(self.execute(statement, 299), Answer::Rows(0));
        assert_eq!(self.ping(), Answer::Ok);
        // A result that fills many packets, and a text that needs many writes.
        if round.is_multiple_of(16) {
            assert_eq!(self.query("SELECT REPEAT('x', 200000)"), Answer::Rows(1));
            assert_eq!(self.query(&format!("SELECT LENGTH('{}')", "y".repeat(50_000))), Answer::Rows(1));
        }
        let own = self.prepare("SELECT ? + 1");
        assert_eq!(self.execute(&own, round as i64), Answer::Rows(1));
        self.close(&own);
    }
}

/// The table that [`MySql::mix`] reads: 300 rows with the ids 0 to 299.
pub fn create(client: &mut MySql) {
    assert_eq!(client.query("CREATE TABLE truth.words (id INT PRIMARY KEY, n INT, word VARCHAR(100))"), Answer::Ok);
    let rows: Vec<String> = (0..300).map(|id| format!("({id}, 0, 'word {id} of a table')")).collect();
    assert_eq!(client.query(&format!("INSERT INTO truth.words VALUES {}", rows.join(","))), Answer::Ok);
}

/// The statement that [`MySql::mix`] executes.
pub const STATEMENT: &str = "SELECT id, word FROM truth.words WHERE id > ?";
