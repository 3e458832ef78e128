//! What is behind each address: acceptors of TLS, limits, and how all of it is loaded again.

use std::sync::Arc;

use crate::config::Config;
use crate::shard::{ListenerKind, Listening};
use crate::transport::Acceptor;
use crate::transport::tls::{LoadError, TlsAcceptor};

/// What is behind each address, in the order of [`Config::addresses`]. Listeners with the same files and the same wish
/// for certificates of clients have one acceptor, so a client resumes at any of them; others have tickets of their own.
pub(super) fn listeners(config: &Config) -> Result<(Vec<Arc<TlsAcceptor>>, Vec<Listening>), LoadError> {
    let mut acceptors: Vec<Arc<TlsAcceptor>> = Vec::new();
    let mut behind = Vec::new();
    for listener in &config.listeners {
        let kind = match &listener.tls {
            None => ListenerKind::Plain,
            Some(settings) => {
                let known = acceptors.iter().find(|acceptor| acceptor.settings() == settings).cloned();
                let acceptor = match known {
                    Some(acceptor) => acceptor,
                    None => {
                        let new = Arc::new(TlsAcceptor::new(settings.clone())?);
                        acceptors.push(Arc::clone(&new));
                        new
                    }
                };
                ListenerKind::Secure(acceptor as Arc<dyn Acceptor>)
            }
        };
        behind.push(match behind.last() {
            Some(first) if listener.shares_room => Listening::clone(first),
            Some(_) | None => Listening::new(kind, listener.limits),
        });
    }
    Ok((acceptors, behind))
}
