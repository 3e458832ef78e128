//! What lies between TCP and MQTT: nothing, TLS, WebSocket, or WebSocket over TLS. Bytes in, bytes out; no socket.

mod tls;
mod websocket;

use tls::Tls;
pub use tls::{Files, client_config};
use websocket::WebSocket;

use crate::spec::Transport;

/// Why a layer cannot go on, in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LayerError(pub String);

/// The layers of one connection that has any.
pub struct Layers {
    tls: Option<Tls>,
    websocket: Option<WebSocket>,
}

impl Layers {
    /// `None` for plain TCP.
    pub fn new(transport: &Transport, host: &str, seed: u64) -> Result<Option<Box<Layers>>, LayerError> {
        let tls = transport
            .tls
            .as_ref()
            .map(|(config, name)| Tls::new(config.clone(), name.clone()))
            .transpose()?;
        let websocket = transport.websocket.as_ref().map(|path| WebSocket::new(host, path, seed));
        Ok((tls.is_some() || websocket.is_some()).then(|| Box::new(Layers { tls, websocket })))
    }

    /// Appends the first bytes to send.
    pub fn start(&mut self, raw: &mut Vec<u8>) -> Result<(), LayerError> {
        match (&mut self.tls, &mut self.websocket) {
            (Some(tls), Some(websocket)) => {
                tls.send(&websocket.request())?;
                tls.take_output(raw)
            }
            (Some(tls), None) => tls.take_output(raw),
            (None, Some(websocket)) => {
                raw.extend_from_slice(&websocket.request());
                Ok(())
            }
            (None, None) => Ok(()),
        }
    }

    /// Whether the handshakes are over.
    pub fn is_ready(&self) -> bool {
        self.tls.as_ref().is_none_or(Tls::is_ready) && self.websocket.as_ref().is_none_or(WebSocket::is_ready)
    }

    /// Takes bytes off the wire: MQTT bytes go to `plain`, what has to be answered to `raw`.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        plain: &mut Vec<u8>,
        raw: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        let Some(tls) = &mut self.tls else {
            return self.websocket.as_mut().map_or(Ok(()), |websocket| websocket.receive(bytes, plain, raw));
        };
        match &mut self.websocket {
            None => tls.receive(bytes, plain)?,
            Some(websocket) => {
                let (mut inner, mut answer) = (Vec::new(), Vec::new());
                tls.receive(bytes, &mut inner)?;
                websocket.receive(&inner, plain, &mut answer)?;
                tls.send(&answer)?;
            }
        }
        tls.take_output(raw)
    }

    /// Wraps MQTT bytes for the wire.
    pub fn send(&mut self, plain: &[u8], raw: &mut Vec<u8>) -> Result<(), LayerError> {
        match (&mut self.tls, &mut self.websocket) {
            (Some(tls), Some(websocket)) => {
                let mut frames = Vec::with_capacity(plain.len() + 16);
                websocket.send(plain, &mut frames);
                tls.send(&frames)?;
                tls.take_output(raw)
            }
            (Some(tls), None) => {
                tls.send(plain)?;
                tls.take_output(raw)
            }
            (None, Some(websocket)) => {
                websocket.send(plain, raw);
                Ok(())
            }
            (None, None) => Ok(()),
        }
    }
}
