//! Outgoing HTTP: one way to build a client, so that every one has timeouts and follows no redirects.
//!
//! For hosts that the operator configured. Guarding addresses that tenants may choose is a matter of its own.

use std::time::Duration;

/// What Weir calls itself to others.
pub const USER_AGENT: &str = concat!("weir/", env!("CARGO_PKG_VERSION"));

/// How long a connection (TCP and TLS) may take, at most; a shorter total time shortens it, too.
const CONNECT: Duration = Duration::from_secs(5);

/// No client could be made.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot set up outgoing HTTPS: {0}. Certificates of public authorities are read from the system: is the \
     package ca-certificates installed, or SSL_CERT_FILE set?"
)]
pub struct EgressError(String);

/// Makes aws-lc the process's cryptography for TLS. First thing in `main`; a second call changes nothing.
pub fn install_crypto() {
    // The error only says that a provider is there already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// A client whose requests take no longer than `timeout` from start to the end of the body. It follows no
/// redirects and takes no proxy from the environment. Make one per purpose and keep it: it holds the pool.
///
/// # Errors
/// [`EgressError`] where the system has no certificate authorities.
pub fn client(timeout: Duration) -> Result<reqwest::Client, EgressError> {
    reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .connect_timeout(CONNECT.min(timeout))
        .timeout(timeout)
        .pool_max_idle_per_host(8)
        .pool_idle_timeout(Duration::from_secs(30))
        .tcp_nodelay(true)
        .build()
        .map_err(|error| {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            EgressError(text)
        })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn redirects_are_answers_and_time_is_bounded() {
        install_crypto();
        install_crypto();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let server = crate::tasks::Tasks::new();
        let seen = server.spawn(async move {
            let (mut first, _) = listener.accept().await.expect("a connection");
            let mut request = vec![0; 4096];
            let read = first.read(&mut request).await.expect("a request");
            let answer = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            first.write_all(answer.as_bytes()).await.expect("an answer");
            drop(first);
            let silent = listener.accept().await.expect("a second connection");
            (String::from_utf8_lossy(&request[..read]).into_owned(), silent)
        });
        let client = client(Duration::from_millis(300)).expect("a client");
        assert_eq!(client.get(&url).send().await.expect("an answer").status(), 302);
        let error = client.get(&url).send().await.expect_err("no answer");
        assert!(error.is_timeout(), "{error}");
        let (request, _silent) = seen.await.expect("the server");
        assert!(request.contains(USER_AGENT), "{request}");
    }
}
