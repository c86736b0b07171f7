//! `wasi:sockets`: gives nothing. It is linked because the standard libraries of many languages import it in programs that never use it; nothing
//! grants it. A socket can be made, so that the guest says where it wants to go, and is refused there: every address and every name, noted as
//! `address-denied`. There is no socket of the operating system behind any of this, so there is nothing that could send a packet.

use std::net::SocketAddr;

use skep_rules::reason::Reason;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, DynPollable, Network, Pollable, SocketError, SocketResult, TcpSocket, UdpSocket,
    bindings::sockets::{
        instance_network, ip_name_lookup,
        network::{self, ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress},
        tcp, tcp_create_socket, udp, udp_create_socket,
    },
    subscribe,
};

use super::base::{Base, Get, HasBase};

/// What stands in the table for a socket, a network or a datagram stream. Handles of the library's types are made with its place in the table; the
/// library's own objects do not exist, and its code, if it were reached, would find the wrong type.
struct Nothing {
    family: IpAddressFamily,
}

#[wasmtime_wasi::async_trait]
impl Pollable for Nothing {
    async fn ready(&mut self) {}
}

/// Links `wasi:sockets`.
///
/// # Errors
/// When the linker holds one of the interfaces already.
pub(super) fn link<T: Send + 'static>(linker: &mut Linker<T>, get: Get<T>) -> wasmtime::Result<()> {
    network::add_to_linker::<T, HasBase>(linker, &network::LinkOptions::default(), get)?;
    instance_network::add_to_linker::<T, HasBase>(linker, get)?;
    ip_name_lookup::add_to_linker::<T, HasBase>(linker, get)?;
    tcp_create_socket::add_to_linker::<T, HasBase>(linker, get)?;
    tcp::add_to_linker::<T, HasBase>(linker, get)?;
    udp_create_socket::add_to_linker::<T, HasBase>(linker, get)?;
    udp::add_to_linker::<T, HasBase>(linker, get)
}

impl Base {
    /// Counts the call and answers it with an error that says nothing about the network.
    fn never<R>(&mut self, code: ErrorCode) -> SocketResult<R> {
        self.meter.charge(0).map_err(SocketError::trap)?;
        Err(code.into())
    }

    /// Counts the call, notes where it wanted to go and refuses it.
    fn refuse<R>(&mut self, verb: &str, target: &str, code: ErrorCode) -> SocketResult<R> {
        self.denials.note(Reason::AddressDenied, &format!("{verb} {target}"));
        self.never(code)
    }

    fn refuse_address<R>(&mut self, verb: &str, address: IpSocketAddress) -> SocketResult<R> {
        self.refuse(verb, &SocketAddr::from(address).to_string(), ErrorCode::AccessDenied)
    }

    fn make_nothing<R: 'static>(&mut self, family: IpAddressFamily) -> wasmtime::Result<Resource<R>> {
        self.meter.charge(0)?;
        Ok(Resource::new_own(self.table.push(Nothing { family })?.rep()))
    }

    fn nothing<R: 'static>(&mut self, handle: &Resource<R>) -> wasmtime::Result<&Nothing> {
        self.meter.charge(0)?;
        Ok(self.table.get(&Resource::new_borrow(handle.rep()))?)
    }

    fn drop_nothing<R: 'static>(&mut self, handle: &Resource<R>) -> wasmtime::Result<()> {
        self.table.delete::<Nothing>(Resource::new_own(handle.rep()))?;
        Ok(())
    }

    /// A pollable that is ready: whoever waits for something that never comes gets to ask for it.
    fn poll_nothing<R: 'static>(&mut self, handle: &Resource<R>) -> wasmtime::Result<Resource<DynPollable>> {
        self.meter.charge(0)?;
        subscribe(&mut self.table, Resource::<Nothing>::new_borrow(handle.rep()))
    }
}

impl network::Host for Base {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn network_error_code(&mut self, _: Resource<wasmtime::Error>) -> wasmtime::Result<Option<ErrorCode>> {
        Ok(None)
    }
}

impl network::HostNetwork for Base {
    fn drop(&mut self, network: Resource<Network>) -> wasmtime::Result<()> {
        self.drop_nothing(&network)
    }
}

impl instance_network::Host for Base {
    fn instance_network(&mut self) -> wasmtime::Result<Resource<Network>> {
        self.make_nothing(IpAddressFamily::Ipv4)
    }
}

impl ip_name_lookup::Host for Base {
    fn resolve_addresses(
        &mut self,
        _: Resource<Network>,
        name: String,
    ) -> SocketResult<Resource<ip_name_lookup::ResolveAddressStream>> {
        self.refuse("look up", &name, ErrorCode::AccessDenied)
    }
}

impl ip_name_lookup::HostResolveAddressStream for Base {
    fn resolve_next_address(
        &mut self,
        _: Resource<ip_name_lookup::ResolveAddressStream>,
    ) -> SocketResult<Option<IpAddress>> {
        self.never(ErrorCode::AccessDenied)
    }

    fn subscribe(
        &mut self,
        stream: Resource<ip_name_lookup::ResolveAddressStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        self.poll_nothing(&stream)
    }

    fn drop(&mut self, stream: Resource<ip_name_lookup::ResolveAddressStream>) -> wasmtime::Result<()> {
        self.drop_nothing(&stream)
    }
}

impl tcp_create_socket::Host for Base {
    fn create_tcp_socket(&mut self, family: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        self.make_nothing(family).map_err(SocketError::trap)
    }
}

impl udp_create_socket::Host for Base {
    async fn create_udp_socket(&mut self, family: IpAddressFamily) -> SocketResult<Resource<UdpSocket>> {
        self.make_nothing(family).map_err(SocketError::trap)
    }
}

impl tcp::Host for Base {}

/// Options and questions of a socket that is neither bound nor connected.
macro_rules! unconnected {
    ($socket:ty: $($name:ident($($value:ty)?) -> $answer:ty;)*) => {
        $(fn $name(&mut self, _: Resource<$socket> $(, _: $value)?) -> SocketResult<$answer> {
            self.never(ErrorCode::InvalidState)
        })*
    };
}

impl tcp::HostTcpSocket for Base {
    async fn start_bind(
        &mut self,
        _: Resource<TcpSocket>,
        _: Resource<Network>,
        address: IpSocketAddress,
    ) -> SocketResult<()> {
        self.refuse_address("tcp bind", address)
    }

    fn start_connect(
        &mut self,
        _: Resource<TcpSocket>,
        _: Resource<Network>,
        address: IpSocketAddress,
    ) -> SocketResult<()> {
        self.refuse_address("tcp connect", address)
    }

    async fn start_listen(&mut self, _: Resource<TcpSocket>) -> SocketResult<()> {
        self.refuse("tcp", "listen", ErrorCode::AccessDenied)
    }

    fn finish_connect(
        &mut self,
        _: Resource<TcpSocket>,
    ) -> SocketResult<(Resource<DynInputStream>, Resource<DynOutputStream>)> {
        self.never(ErrorCode::NotInProgress)
    }

    fn accept(
        &mut self,
        _: Resource<TcpSocket>,
    ) -> SocketResult<(Resource<TcpSocket>, Resource<DynInputStream>, Resource<DynOutputStream>)> {
        self.never(ErrorCode::InvalidState)
    }

    unconnected! { TcpSocket:
        finish_bind() -> ();
        finish_listen() -> ();
        local_address() -> IpSocketAddress;
        remote_address() -> IpSocketAddress;
        set_listen_backlog_size(u64) -> ();
        keep_alive_enabled() -> bool;
        set_keep_alive_enabled(bool) -> ();
        keep_alive_idle_time() -> u64;
        set_keep_alive_idle_time(u64) -> ();
        keep_alive_interval() -> u64;
        set_keep_alive_interval(u64) -> ();
        keep_alive_count() -> u32;
        set_keep_alive_count(u32) -> ();
        hop_limit() -> u8;
        set_hop_limit(u8) -> ();
        receive_buffer_size() -> u64;
        set_receive_buffer_size(u64) -> ();
        send_buffer_size() -> u64;
        set_send_buffer_size(u64) -> ();
        shutdown(tcp::ShutdownType) -> ();
    }

    fn is_listening(&mut self, _: Resource<TcpSocket>) -> wasmtime::Result<bool> {
        self.meter.charge(0)?;
        Ok(false)
    }

    fn address_family(&mut self, socket: Resource<TcpSocket>) -> wasmtime::Result<IpAddressFamily> {
        Ok(self.nothing(&socket)?.family)
    }

    fn subscribe(&mut self, socket: Resource<TcpSocket>) -> wasmtime::Result<Resource<DynPollable>> {
        self.poll_nothing(&socket)
    }

    fn drop(&mut self, socket: Resource<TcpSocket>) -> wasmtime::Result<()> {
        self.drop_nothing(&socket)
    }
}

impl udp::Host for Base {}

impl udp::HostUdpSocket for Base {
    async fn start_bind(
        &mut self,
        _: Resource<UdpSocket>,
        _: Resource<Network>,
        address: IpSocketAddress,
    ) -> SocketResult<()> {
        self.refuse_address("udp bind", address)
    }

    async fn stream(
        &mut self,
        _: Resource<UdpSocket>,
        remote: Option<IpSocketAddress>,
    ) -> SocketResult<(
        Resource<udp::IncomingDatagramStream>,
        Resource<udp::OutgoingDatagramStream>,
    )> {
        match remote {
            Some(address) => self.refuse_address("udp connect", address),
            None => self.never(ErrorCode::InvalidState),
        }
    }

    unconnected! { UdpSocket:
        finish_bind() -> ();
        local_address() -> IpSocketAddress;
        remote_address() -> IpSocketAddress;
        unicast_hop_limit() -> u8;
        set_unicast_hop_limit(u8) -> ();
        receive_buffer_size() -> u64;
        set_receive_buffer_size(u64) -> ();
        send_buffer_size() -> u64;
        set_send_buffer_size(u64) -> ();
    }

    fn address_family(&mut self, socket: Resource<UdpSocket>) -> wasmtime::Result<IpAddressFamily> {
        Ok(self.nothing(&socket)?.family)
    }

    fn subscribe(&mut self, socket: Resource<UdpSocket>) -> wasmtime::Result<Resource<DynPollable>> {
        self.poll_nothing(&socket)
    }

    fn drop(&mut self, socket: Resource<UdpSocket>) -> wasmtime::Result<()> {
        self.drop_nothing(&socket)
    }
}

// Datagram streams are never handed out, so nobody holds one to call these with.
impl udp::HostIncomingDatagramStream for Base {
    unconnected! { udp::IncomingDatagramStream:
        receive(u64) -> Vec<udp::IncomingDatagram>;
    }

    fn subscribe(&mut self, stream: Resource<udp::IncomingDatagramStream>) -> wasmtime::Result<Resource<DynPollable>> {
        self.poll_nothing(&stream)
    }

    fn drop(&mut self, stream: Resource<udp::IncomingDatagramStream>) -> wasmtime::Result<()> {
        self.drop_nothing(&stream)
    }
}

impl udp::HostOutgoingDatagramStream for Base {
    unconnected! { udp::OutgoingDatagramStream:
        check_send() -> u64;
        send(Vec<udp::OutgoingDatagram>) -> u64;
    }

    fn subscribe(&mut self, stream: Resource<udp::OutgoingDatagramStream>) -> wasmtime::Result<Resource<DynPollable>> {
        self.poll_nothing(&stream)
    }

    async fn drop(&mut self, stream: Resource<udp::OutgoingDatagramStream>) -> wasmtime::Result<()> {
        self.drop_nothing(&stream)
    }
}
