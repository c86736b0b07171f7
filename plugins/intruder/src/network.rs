//! Drills against the network: no address and no name may be reached.

use std::net::{TcpStream, ToSocketAddrs, UdpSocket};

use crate::trial::Trial;

/// This machine, and the address at which clouds hand out credentials.
const TARGETS: [&str; 2] = ["127.0.0.1:80", "169.254.169.254:80"];

/// Connect to the machine itself and to a cloud's metadata address.
pub(crate) fn tcp_connect(trial: &mut Trial) {
    for target in TARGETS {
        trial.must_fail(format!("connect to {target}"), TcpStream::connect(target));
    }
}

/// Send a datagram, as exfiltration by DNS would.
pub(crate) fn udp_send(trial: &mut Trial) {
    let sent = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.send_to(b"hello", "127.0.0.1:53"));
    trial.must_fail("send to 127.0.0.1:53", sent);
}

/// Look a name up.
pub(crate) fn name_lookup(trial: &mut Trial) {
    let addresses = "example.com:80".to_socket_addrs().map(Iterator::count);
    trial.must_fail("look up example.com", addresses);
}
