//! The way from a replica to something that it depends on, which a test can break.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use weir::tasks::Tasks;

use super::port::Port;
use super::relay::{Way, relay};

/// A way to one server. It ends with this value, and with it every connection.
pub struct Fault {
    /// What to connect to in the server's place.
    pub address: SocketAddr,
    way: watch::Sender<Way>,
}

impl Fault {
    /// A way to this server, open.
    pub fn on_the_way_to(server: SocketAddr) -> Self {
        let (port, way) = (Port::take(), watch::Sender::new(Way::Open));
        let (address, mut changes) = (port.address, way.subscribe());
        let (mut listener, tasks) = (Some(port.listen(None)), Tasks::new());
        tasks.clone().spawn(async move {
            let mut watched = changes.clone();
            loop {
                // Goes at the cut: without a listener, connections are refused.
                let listener = listener.take().unwrap_or_else(|| port.listen(None));
                let cut = async { watched.wait_for(|way| *way == Way::Cut).await.is_ok() };
                tokio::select! {
                    is_cut = cut => if !is_cut { return },
                    () = accept(&listener, server, &changes, &tasks) => {}
                }
                drop(listener);
                if changes.wait_for(|way| *way != Way::Cut).await.is_err() {
                    return;
                }
            }
        });
        Self { address, way }
    }

    /// Resets every connection and refuses new ones.
    pub fn cut(&self) {
        self.way.send_replace(Way::Cut);
    }

    /// Says nothing more to either side. New connections are taken, and that is all.
    pub fn freeze(&self) {
        self.way.send_replace(Way::Frozen);
    }

    /// Lets connections through that are made from now on; those that were frozen stay so for ever.
    pub fn renew(&self) {
        self.way.send_replace(Way::Renewed);
    }

    /// Lets everything through again, also what waits in connections that were frozen.
    pub fn heal(&self) {
        self.way.send_replace(Way::Open);
    }
}

async fn accept(listener: &TcpListener, server: SocketAddr, way: &watch::Receiver<Way>, tasks: &Tasks) {
    loop {
        let (client, _) = listener.accept().await.expect("a connection");
        tasks.spawn(connection(client, server, way.clone()));
    }
}

async fn connection(client: TcpStream, server: SocketAddr, mut way: watch::Receiver<Way>) {
    let reached = match way.wait_for(|way| *way != Way::Frozen).await.map(|way| *way) {
        Ok(Way::Open | Way::Renewed) => TcpStream::connect(server).await.ok(),
        _ => None,
    };
    let Some(server) = reached else { return drop(client.set_zero_linger()) };
    if *way.borrow() != Way::Renewed {
        return relay(client, server, way).await;
    }
    // A way of its own, on which what is renewed is open.
    let own = watch::Sender::new(Way::Open);
    let relayed = relay(client, server, own.subscribe());
    let following = async {
        while way.changed().await.is_ok() {
            let now = *way.borrow_and_update();
            own.send_replace(if now == Way::Renewed { Way::Open } else { now });
        }
    };
    tokio::select! {
        () = relayed => {}
        () = following => {}
    }
}
