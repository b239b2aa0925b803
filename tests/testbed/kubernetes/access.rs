//! Who may do what: kubeconfigs of client-certificate users and ServiceAccounts, RBAC grants, and kubectl.

use super::certificates::{Authority, Identity};
use super::{ControlPlane, Port, Testbed};
use k8s_openapi::ByteString;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Where a grant holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope<'a> {
    /// A Role in that namespace.
    Namespace(&'a str),
    /// A ClusterRole.
    Cluster,
}

impl ControlPlane {
    /// The administrator's kubeconfig file.
    pub fn kubeconfig(&self) -> PathBuf {
        self.api.dir().join("admin.kubeconfig")
    }

    /// A kubeconfig file for a user with a client certificate, who may do nothing until granted.
    pub fn user(&self, name: &str, groups: &[&str]) -> PathBuf {
        let identity = self.authority.client(name, groups);
        self.write_kubeconfig(name, &kubeconfig(&self.authority, &self.ports.api, &identity))
    }

    /// A kubeconfig file with a token of the ServiceAccount, which is made if need be and may do nothing until granted.
    pub fn service_account(&self, namespace: &str, name: &str) -> PathBuf {
        let token = self.token(namespace, name);
        let config = config(&self.authority, &self.ports.api, &json!({ "token": token }), namespace);
        self.write_kubeconfig(&format!("{namespace}-{name}"), &config)
    }

    /// A token of the ServiceAccount, which is made if need be; good for a day.
    pub fn token(&self, namespace: &str, name: &str) -> String {
        let account =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}});
        self.apply(&account);
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 86400}});
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
        let body = serde_json::to_vec(&request).expect("JSON");
        let request = hyper::Request::post(path).header("content-type", "application/json").body(body);
        let answer: Value = self
            .run(self.client.request(request.expect("a request")))
            .unwrap_or_else(|e| panic!("no token for {name}: {e}"));
        answer["status"]["token"].as_str().expect("the answer has a token").to_owned()
    }

    /// Lets a user, `name`, or a ServiceAccount, `system:serviceaccount:NAMESPACE:NAME`, do exactly what `rules` (a list of
    /// PolicyRules) say in that scope, replacing what was granted to it there before.
    pub fn grant(&self, subject: &str, scope: Scope<'_>, rules: &Value) {
        let name = subject.replace(':', "-");
        let user = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": subject}]);
        let (prefix, namespace) = match scope {
            Scope::Cluster => ("Cluster", None),
            Scope::Namespace(namespace) => ("", Some(namespace)),
        };
        let role = format!("{prefix}Role");
        let mut metadata = json!({"name": name});
        if let Some(namespace) = namespace {
            metadata["namespace"] = json!(namespace);
        }
        self.apply(
            &json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": role, "metadata": metadata, "rules": rules}),
        );
        self.apply(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": format!("{role}Binding"), "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": name}, "subjects": user,
        }));
    }

    /// `kubectl` as the administrator: what it prints, or its message.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        self.kubectl_with(arguments, "")
    }

    /// The same with standard input, as `apply -f -` wants.
    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        use std::io::Write;
        let mut child = Command::new("timeout")
            .arg("60")
            .arg(Testbed::get().path("kubernetes", "KUBECTL"))
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(arguments)
            // its discovery cache, which it keeps in the home directory otherwise
            .env("HOME", self.api.dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        let mut stdin = child.stdin.take().expect("piped");
        let input = input.to_owned();
        let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
        let out = child.wait_with_output().map_err(|e| e.to_string())?;
        let _ = writer.join();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
    }

    fn write_kubeconfig(&self, name: &str, config: &Value) -> PathBuf {
        let file = self.api.dir().join(format!("{}.kubeconfig", name.replace([':', '/'], "-")));
        fs::write(&file, config.to_string()).expect("the folder is writable");
        file
    }
}

/// `https://127.0.0.1:PORT`.
pub fn url(port: &Port) -> String {
    format!("https://127.0.0.1:{}", port.number())
}

/// A kubeconfig (JSON is YAML) for who has that certificate.
pub fn kubeconfig(authority: &Authority, port: &Port, user: &Identity) -> Value {
    let user = json!({"client-certificate-data": base64(&user.certificate), "client-key-data": base64(&user.key)});
    config(authority, port, &user, "default")
}

fn config(authority: &Authority, port: &Port, user: &Value, namespace: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "testbed", "cluster": {
            "server": url(port), "certificate-authority-data": base64(&authority.pem()),
        }}],
        "users": [{"name": "user", "user": user}],
        "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": "user", "namespace": namespace}}],
        "current-context": "testbed",
    })
}

fn base64(text: &str) -> Value {
    serde_json::to_value(ByteString(text.as_bytes().to_vec())).expect("bytes")
}
