//! What must hold for any bytes of the connection phase. Shared by the fuzz target and the test that replays its corpus.

use holdfast::wire::auth;
use holdfast::wire::capabilities::Capabilities;
use holdfast::wire::err::ErrPacket;
use holdfast::wire::handshake::{Attributes, AuthSwitch, ChangeUser, Greeting, HandshakeResponse, ssl_request};
use holdfast::wire::ok::OkPacket;

/// What was read and written again reads the same.
pub fn check(data: &[u8]) {
    if let Ok(greeting) = Greeting::parse(data) {
        assert_eq!(Greeting::parse(&greeting.payload()), Ok(greeting));
    }
    response(data);
    let _ = ssl_request(data);
    for capabilities in [Capabilities::SERVED, Capabilities::NONE] {
        if let Ok(packet) = ChangeUser::parse(data, capabilities) {
            let again = packet.payload(capabilities);
            let packet = ChangeUser { collation: Some(packet.collation.unwrap_or(0)), ..packet };
            assert_eq!(ChangeUser::parse(&again, capabilities), Ok(packet));
        }
    }
    if let Ok(packet) = AuthSwitch::parse(data) {
        let again = packet.payload();
        assert_eq!(AuthSwitch::parse(&again).map(|again| again.plugin), Ok(packet.plugin));
    }
    if let Ok(packet) = ErrPacket::parse(data) {
        assert_eq!(ErrPacket::parse(&packet.payload()), Ok(packet));
    }
    if let Ok(packet) = OkPacket::parse(data) {
        assert_eq!(OkPacket::parse(&packet.payload()), Ok(packet));
    }
    assert!(Attributes::new(data).count() <= data.len());
    scrambles(data);
}

fn response(data: &[u8]) {
    let Ok(packet) = HandshakeResponse::parse(data) else { return };
    // Only the form that servers of today are sent is written.
    let capabilities = packet.capabilities | Capabilities::SECURE_CONNECTION;
    let packet = HandshakeResponse { capabilities, ..packet };
    if packet.auth.len() > 255 && !capabilities.has(Capabilities::PLUGIN_AUTH_LENENC_CLIENT_DATA) {
        return;
    }
    let again = packet.payload();
    assert_eq!(HandshakeResponse::parse(&again), Ok(packet));
}

/// No answer fits a verifier but the one made from the password.
fn scrambles(data: &[u8]) {
    let nonce = b"abcdefghijklmnopqrst";
    let verifier = auth::sha2_verifier(&auth::sha2_stage1(b"secret"));
    assert!(auth::sha2_recover(data, &verifier, nonce).is_none());
    let verifier = auth::native_verifier(&auth::native_stage1(b"secret"));
    assert!(auth::native_recover(data, &verifier, nonce).is_none());
    let _ = auth::native_verifier_from_text(data);
    let stage1 = auth::sha2_stage1(data);
    let answer = auth::sha2_scramble(&stage1, nonce);
    assert_eq!(auth::sha2_recover(&answer, &auth::sha2_verifier(&stage1), nonce), Some(stage1));
}
