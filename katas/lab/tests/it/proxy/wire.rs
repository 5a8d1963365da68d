//! A PostgreSQL client by hand: frames as bytes, so that a test decides what is sent when.

use std::io::Read;

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::PASSWORD;

/// A frame: its tag and its body.
pub(crate) type Answer = (u8, Vec<u8>);

/// One connection.
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
}

/// A frame of the program.
pub(crate) fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend((body.len() as u32 + 4).to_be_bytes());
    bytes.extend(body);
    bytes
}

/// A simple query.
pub(crate) fn query(sql: &str) -> Vec<u8> {
    frame(b'Q', &[sql.as_bytes(), b"\0"].concat())
}

/// Parse, bind and execute without parameters or names, and without a Sync.
pub(crate) fn extended(sql: &str) -> Vec<u8> {
    [
        frame(b'P', &[b"\0", sql.as_bytes(), b"\0\0\0"].concat()),
        frame(b'B', b"\0\0\0\0\0\0\0\0"),
        frame(b'E', b"\0\0\0\0\0"),
    ]
    .concat()
}

/// A Sync.
pub(crate) fn sync() -> Vec<u8> {
    frame(b'S', b"")
}

/// The tags of some answers, as text.
pub(crate) fn tags(answers: &[Answer]) -> String {
    answers.iter().map(|(tag, _)| char::from(*tag)).collect()
}

impl Wire {
    pub(crate) async fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The first packet of a session, and the password that the server will ask for.
    pub(crate) async fn start(&mut self, user: &str, database: &str, schema: &str) {
        let words = [
            "user",
            user,
            "database",
            database,
            "search_path",
            schema,
            "",
        ];
        let body = words.map(|word| format!("{word}\0")).concat();
        let mut packet = (body.len() as u32 + 8).to_be_bytes().to_vec();
        packet.extend((3_u32 << 16).to_be_bytes());
        packet.extend(body.as_bytes());
        packet.extend(frame(b'p', format!("{PASSWORD}\0").as_bytes()));
        self.send(&packet).await;
    }

    pub(crate) async fn answer(&mut self) -> std::io::Result<Answer> {
        let tag = self.stream.read_u8().await?;
        let length = self.stream.read_u32().await? as usize;
        let mut body = vec![0; length - 4];
        self.stream.read_exact(&mut body).await?;
        Ok((tag, body))
    }

    /// All answers up to and with the first of this kind.
    pub(crate) async fn until(&mut self, last: u8) -> Vec<Answer> {
        let mut answers = Vec::new();
        loop {
            answers.push(self.answer().await.unwrap());
            if answers.last().is_some_and(|(tag, _)| *tag == last) {
                return answers;
            }
        }
    }

    pub(crate) async fn until_ready(&mut self) -> Vec<Answer> {
        self.until(b'Z').await
    }

    /// Whether nothing has come that was not read. What is under way is not seen: it is of use
    /// only where something else has shown that an answer would be here.
    pub(crate) fn has_heard_nothing(&self) -> bool {
        // Past Tokio, which only knows what its driver has seen so far.
        let read = (&*SockRef::from(&self.stream)).read(&mut [0]);
        matches!(read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }
}
