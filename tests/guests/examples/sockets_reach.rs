//! Tries to reach what its input names and tells how each try ended, by the error's kind:
//! `[{"do": "connect", "to": "127.0.0.1:80"}, {"do": "bind", "to": "0.0.0.0:0"}, {"do": "listen", "to": "[::1]:80"}, {"do": "look-up", "to": "example.com:80"}]`.

use std::{
    io,
    net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket},
};

use serde::Deserialize;
use skep_sdk::{Executor, Failure, Outcome, Task};

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
enum Try {
    /// TCP to an address.
    Connect { to: String },
    /// A UDP socket at an address.
    Bind { to: String },
    /// A TCP listener at an address.
    Listen { to: String },
    /// A name.
    LookUp { to: String },
}

fn attempt(attempt: &Try) -> io::Result<()> {
    match attempt {
        Try::Connect { to } => TcpStream::connect(to).map(drop),
        Try::Bind { to } => UdpSocket::bind(to).map(drop),
        Try::Listen { to } => TcpListener::bind(to).map(drop),
        Try::LookUp { to } => to.to_socket_addrs().map(drop),
    }
}

struct Sockets;

impl Executor for Sockets {
    fn execute(task: Task) -> Result<Outcome, Failure> {
        let tries: Vec<Try> = task.input()?;
        let ends = tries.iter().map(|try_| match attempt(try_) {
            Ok(()) => "reached".to_owned(),
            Err(error) => format!("{:?}", error.kind()),
        });
        Ok(Outcome::json(&ends.collect::<Vec<_>>())?)
    }
}

skep_sdk::executor!(Sockets);
