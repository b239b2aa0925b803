//! `[cluster.kubernetes]`: what is read and what is refused.

use super::*;
use crate::topology::kubernetes::Preset;

const STATIC: &str = "source = \"static\"\nservers = [{ address = \"db-0\" }]";

fn with(pods: &str) -> String {
    MINIMAL.replace(STATIC, &format!("source = \"kubernetes\"\nkubernetes = {{ {pods} }}"))
}

#[test]
fn each_refusal_has_its_line_and_its_advice() {
    for (pods, part) in [
        ("preset = \"mocco\"", "did you mean \"moco\"?"),
        ("namespace = \"shop\"", "cluster.kubernetes.preset is missing"),
        ("preset = \"moco\", component = \"a\"", "only pods of preset = \"kubeblocks\" have one"),
        ("preset = \"moco\", namespace = \"a\", namespaces = [\"b\"]", "namespaces is written too"),
        ("preset = \"moco\", namespaces = []", "write at least one, or leave it out"),
        ("preset = \"moco\", namespaces = [\"a\", \"a\"]", "one is written twice"),
        ("preset = \"moco\", namespace = \"a b\"", "\"a b\" is no namespace: write small letters"),
        ("preset = \"moco\", selector = \" \"", "write labels as kubectl -l takes them"),
        ("preset = \"moco\", kubeconfig = \"no/such/file\"", "no/such/file: No such file or directory"),
        ("preset = \"moco\", port = 0", "write a whole number from 1 to 65535"),
        ("preset = \"moco\", custom = { selector = \"a\" }", "belongs to preset = \"custom\""),
        ("preset = \"custom\"", "[cluster.kubernetes.custom] is missing"),
        ("preset = \"custom\", custom = { selector = \"a\" }", "custom.role_label is missing: write the label"),
        (
            "preset = \"custom\", custom = { selector = \"a\", role_label = \"r\", primary = [] }",
            "write at least one value",
        ),
        (
            "preset = \"custom\", custom = { selector = \"a\", role_label = \"a/b/c\", primary = [\"x\"] }",
            "is no key of a label",
        ),
        (
            "preset = \"custom\", custom = { selector = \"a\", role_label = \"r\", primary = [\"x\"], healthy = \"yes\" }",
            "write a label and its value",
        ),
        (
            "preset = \"custom\", custom = { selector = \"a\", role_label = \"r\", primary = [\"x y\"] }",
            "is no label's value",
        ),
    ] {
        let said = refusal(&with(pods), &[]);
        let found = said.lines().any(|line| line.starts_with("holdfast.toml:") && line.contains(part));
        assert!(found, "{pods}: {said}");
    }
}

#[test]
fn every_preset_is_enough_by_itself() {
    for (word, preset) in Preset::WORDS.iter().filter(|(_, preset)| *preset != Preset::Custom) {
        let config = parse(&with(&format!("preset = \"{word}\"")), "holdfast.toml", none()).unwrap();
        assert_eq!(config.clusters[0].source, Source::Kubernetes(Box::new(KubernetesConfig::new(*preset))));
    }
}

#[test]
fn everything_that_can_be_said() {
    let all = "preset = \"custom\", namespaces = [\"b\", \"a\"], cluster = \"c\", selector = \"x in (y)\", port = 3307, \
               context = \"prod\", custom = { selector = \"app=mysql\", cluster_label = \"example.com/cluster\", \
               role_label = \"role\", primary = [\"master\"], follower = [\"slave\"], learner = [\"learner\"], \
               unlabelled = \"follower\", healthy = \"ok=yes\", term_annotation = \"example.com/term\" }";
    let config = parse(&with(all), "holdfast.toml", none()).unwrap();
    let own = |text: &str| Some(text.to_owned());
    let custom = CustomPreset {
        selector: "app=mysql".to_owned(),
        cluster_label: own("example.com/cluster"),
        role_label: "role".to_owned(),
        primary: vec!["master".to_owned()],
        follower: vec!["slave".to_owned()],
        learner: vec!["learner".to_owned()],
        unlabelled: Unlabelled::Follower,
        healthy: Some(("ok".to_owned(), "yes".to_owned())),
        term_annotation: own("example.com/term"),
    };
    let expected = KubernetesConfig {
        namespaces: vec!["a".to_owned(), "b".to_owned()],
        cluster: own("c"),
        selector: own("x in (y)"),
        port: Some(3307),
        context: own("prod"),
        custom: Some(custom),
        ..KubernetesConfig::new(Preset::Custom)
    };
    assert_eq!(config.clusters[0].source, Source::Kubernetes(Box::new(expected)));
    // And what is printed of it is the same again.
    let printed = check::describe(&config);
    let again = parse(&printed, "printed.toml", none()).unwrap_or_else(|error| panic!("{error}\n{printed}"));
    assert_eq!(again.clusters[0].source, config.clusters[0].source, "{printed}");
}

#[test]
fn the_environment_overrides_it() {
    let pairs = [("HOLDFAST__CLUSTER__MAIN__KUBERNETES__NAMESPACES", "a,b")];
    let config = parse(&with("preset = \"moco\""), "holdfast.toml", env(&pairs)).unwrap();
    let Source::Kubernetes(kubernetes) = &config.clusters[0].source else { panic!("{config:?}") };
    assert_eq!(kubernetes.namespaces, ["a", "b"]);
}
