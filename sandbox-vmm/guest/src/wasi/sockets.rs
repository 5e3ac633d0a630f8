//! `wasi:sockets`: all interfaces are there; no socket can be created and no name resolved.

use crate::link::bindings::wasi::sockets::network::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress,
};
use crate::link::bindings::wasi::sockets::{
    instance_network, ip_name_lookup, network, tcp, tcp_create_socket, udp, udp_create_socket,
};
use crate::runtime::State;
use crate::wasi::io::{InputStream, IoError, OutputStream, Pollable};
use alloc::string::String;
use alloc::vec::Vec;
use wasmtime::Result;
use wasmtime::component::Resource;

/// The network that nothing can be reached on.
pub struct Network;
/// A TCP socket; there are none.
pub enum TcpSocket {}
/// A UDP socket; there are none.
pub enum UdpSocket {}
/// A UDP socket's incoming half; there are none.
pub enum IncomingDatagrams {}
/// A UDP socket's outgoing half; there are none.
pub enum OutgoingDatagrams {}
/// The addresses of a name; there are none.
pub enum Addresses {}

type Refused<T> = Result<core::result::Result<T, ErrorCode>>;

/// Methods of resources that nobody can have.
macro_rules! refused {
    ($($name:ident($($argument:ty),*) -> $result:ty;)*) => {
        $(fn $name(&mut self, $(_: $argument),*) -> Refused<$result> { Ok(Err(ErrorCode::AccessDenied)) })*
    };
}

/// Those that every such resource has.
macro_rules! nobody_has {
    ($resource:ty) => {
        fn drop(&mut self, resource: Resource<$resource>) -> Result<()> {
            self.table.delete(resource)?;
            Ok(())
        }
    };
    ($resource:ty, pollable) => {
        fn subscribe(&mut self, _: Resource<$resource>) -> Result<Resource<Pollable>> {
            Ok(self.table.push(Pollable::Ready)?)
        }
        nobody_has!($resource);
    };
}

impl network::Host for State {
    fn network_error_code(&mut self, _: Resource<IoError>) -> Result<Option<ErrorCode>> {
        Ok(None)
    }
}

impl network::HostNetwork for State {
    fn drop(&mut self, network: Resource<Network>) -> Result<()> {
        self.table.delete(network)?;
        Ok(())
    }
}

impl instance_network::Host for State {
    fn instance_network(&mut self) -> Result<Resource<Network>> {
        Ok(self.table.push(Network)?)
    }
}

impl ip_name_lookup::Host for State {
    fn resolve_addresses(
        &mut self,
        _: Resource<Network>,
        _: String,
    ) -> Refused<Resource<Addresses>> {
        Ok(Err(ErrorCode::PermanentResolverFailure))
    }
}

impl ip_name_lookup::HostResolveAddressStream for State {
    refused! { resolve_next_address(Resource<Addresses>) -> Option<IpAddress>; }
    nobody_has!(Addresses, pollable);
}

impl tcp_create_socket::Host for State {
    fn create_tcp_socket(&mut self, _: IpAddressFamily) -> Refused<Resource<TcpSocket>> {
        Ok(Err(ErrorCode::AccessDenied))
    }
}

impl udp_create_socket::Host for State {
    fn create_udp_socket(&mut self, _: IpAddressFamily) -> Refused<Resource<UdpSocket>> {
        Ok(Err(ErrorCode::AccessDenied))
    }
}

impl tcp::Host for State {}

impl tcp::HostTcpSocket for State {
    refused! {
        start_bind(Resource<TcpSocket>, Resource<Network>, IpSocketAddress) -> ();
        finish_bind(Resource<TcpSocket>) -> ();
        start_connect(Resource<TcpSocket>, Resource<Network>, IpSocketAddress) -> ();
        finish_connect(Resource<TcpSocket>) -> (Resource<InputStream>, Resource<OutputStream>);
        start_listen(Resource<TcpSocket>) -> ();
        finish_listen(Resource<TcpSocket>) -> ();
        accept(Resource<TcpSocket>) -> (Resource<TcpSocket>, Resource<InputStream>, Resource<OutputStream>);
        local_address(Resource<TcpSocket>) -> IpSocketAddress;
        remote_address(Resource<TcpSocket>) -> IpSocketAddress;
        set_listen_backlog_size(Resource<TcpSocket>, u64) -> ();
        keep_alive_enabled(Resource<TcpSocket>) -> bool;
        set_keep_alive_enabled(Resource<TcpSocket>, bool) -> ();
        keep_alive_idle_time(Resource<TcpSocket>) -> u64;
        set_keep_alive_idle_time(Resource<TcpSocket>, u64) -> ();
        keep_alive_interval(Resource<TcpSocket>) -> u64;
        set_keep_alive_interval(Resource<TcpSocket>, u64) -> ();
        keep_alive_count(Resource<TcpSocket>) -> u32;
        set_keep_alive_count(Resource<TcpSocket>, u32) -> ();
        hop_limit(Resource<TcpSocket>) -> u8;
        set_hop_limit(Resource<TcpSocket>, u8) -> ();
        receive_buffer_size(Resource<TcpSocket>) -> u64;
        set_receive_buffer_size(Resource<TcpSocket>, u64) -> ();
        send_buffer_size(Resource<TcpSocket>) -> u64;
        set_send_buffer_size(Resource<TcpSocket>, u64) -> ();
        shutdown(Resource<TcpSocket>, tcp::ShutdownType) -> ();
    }

    fn is_listening(&mut self, _: Resource<TcpSocket>) -> Result<bool> {
        Ok(false)
    }

    fn address_family(&mut self, _: Resource<TcpSocket>) -> Result<IpAddressFamily> {
        Ok(IpAddressFamily::Ipv4)
    }

    nobody_has!(TcpSocket, pollable);
}

impl udp::Host for State {}

impl udp::HostUdpSocket for State {
    refused! {
        start_bind(Resource<UdpSocket>, Resource<Network>, IpSocketAddress) -> ();
        finish_bind(Resource<UdpSocket>) -> ();
        stream(Resource<UdpSocket>, Option<IpSocketAddress>) -> (Resource<IncomingDatagrams>, Resource<OutgoingDatagrams>);
        local_address(Resource<UdpSocket>) -> IpSocketAddress;
        remote_address(Resource<UdpSocket>) -> IpSocketAddress;
        unicast_hop_limit(Resource<UdpSocket>) -> u8;
        set_unicast_hop_limit(Resource<UdpSocket>, u8) -> ();
        receive_buffer_size(Resource<UdpSocket>) -> u64;
        set_receive_buffer_size(Resource<UdpSocket>, u64) -> ();
        send_buffer_size(Resource<UdpSocket>) -> u64;
        set_send_buffer_size(Resource<UdpSocket>, u64) -> ();
    }

    fn address_family(&mut self, _: Resource<UdpSocket>) -> Result<IpAddressFamily> {
        Ok(IpAddressFamily::Ipv4)
    }

    nobody_has!(UdpSocket, pollable);
}

impl udp::HostIncomingDatagramStream for State {
    refused! { receive(Resource<IncomingDatagrams>, u64) -> Vec<udp::IncomingDatagram>; }
    nobody_has!(IncomingDatagrams, pollable);
}

impl udp::HostOutgoingDatagramStream for State {
    refused! {
        check_send(Resource<OutgoingDatagrams>) -> u64;
        send(Resource<OutgoingDatagrams>, Vec<udp::OutgoingDatagram>) -> u64;
    }
    nobody_has!(OutgoingDatagrams, pollable);
}
