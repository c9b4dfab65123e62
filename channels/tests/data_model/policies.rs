//! The policy engine against a naive evaluator, and what does not compile.

use std::collections::BTreeSet;
use std::sync::Arc;

use grapevine_channels::policy::{Policy, PolicyFormatError, RULE_DEPTH_MAX, RULES_MAX};
use grapevine_channels::proto::policies::signature_policy::{NOutOf, Type};
use grapevine_channels::proto::policies::{
    ImplicitMetaPolicy, ImplicitMetaRule, SignaturePolicy, SignaturePolicyEnvelope,
};
use grapevine_crypto::proto::MspPrincipal;
use proptest::prelude::*;
use prost::Message as _;

/// Principals of the tests are numbers; an identity is the set of principals that it fits.
const PRINCIPALS: u8 = 4;
type TestIdentity = BTreeSet<u8>;

#[derive(Debug, Clone)]
enum Tree {
    Leaf(u8),
    Threshold(i32, Vec<Self>),
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = (0..PRINCIPALS).prop_map(Tree::Leaf);
    leaf.prop_recursive(4, 24, 4, |inner| {
        (-1..4_i32, prop::collection::vec(inner, 0..4)).prop_map(|(n, rules)| Tree::Threshold(n, rules))
    })
}

fn encode_rule(tree: &Tree) -> SignaturePolicy {
    SignaturePolicy {
        r#type: Some(match tree {
            Tree::Leaf(index) => Type::SignedBy((*index).into()),
            Tree::Threshold(n, rules) => {
                Type::NOutOf(NOutOf { n: *n, rules: rules.iter().map(encode_rule).collect() })
            }
        }),
    }
}

fn envelope(rule: Option<SignaturePolicy>) -> SignaturePolicyEnvelope {
    let principal = |index| MspPrincipal { principal_classification: 0, principal: vec![index] };
    SignaturePolicyEnvelope { version: 0, rule, identities: (0..PRINCIPALS).map(principal).collect() }
}

fn compile(tree: &Tree) -> Result<Policy, PolicyFormatError> {
    Policy::from_signature_policy(&envelope(Some(encode_rule(tree))).encode_to_vec())
}

fn evaluate(policy: &Policy, identities: &[TestIdentity]) -> bool {
    policy.evaluate(identities, &|identity: &TestIdentity, principal| {
        identity.contains(&principal.principal[0])
    })
}

/// Fabric's rule, written without shared state: which identities are used up afterwards, or `None` if it fails.
fn naive(tree: &Tree, identities: &[TestIdentity], used: &BTreeSet<usize>) -> Option<BTreeSet<usize>> {
    match tree {
        Tree::Leaf(principal) => {
            let free = (0..identities.len()).filter(|index| !used.contains(index));
            let first = free.into_iter().find(|index| identities[*index].contains(principal))?;
            Some(used.iter().copied().chain([first]).collect())
        }
        Tree::Threshold(n, rules) => {
            let mut used = used.clone();
            let mut held = 0;
            for rule in rules {
                if let Some(after) = naive(rule, identities, &used) {
                    used = after;
                    held += 1;
                }
            }
            (held >= *n).then_some(used)
        }
    }
}

/// Every way to satisfy the tree, as sets of used identities: no greedy choice.
fn ways(tree: &Tree, identities: &[TestIdentity], used: &BTreeSet<usize>) -> Vec<BTreeSet<usize>> {
    match tree {
        Tree::Leaf(principal) => (0..identities.len())
            .filter(|index| !used.contains(index) && identities[*index].contains(principal))
            .map(|index| used.iter().copied().chain([index]).collect())
            .collect(),
        Tree::Threshold(n, rules) => {
            let mut states = vec![(used.clone(), 0)];
            for rule in rules {
                let taken: Vec<_> = states
                    .iter()
                    .flat_map(|(used, held)| {
                        ways(rule, identities, used).into_iter().map(move |used| (used, held + 1))
                    })
                    .collect();
                states.extend(taken);
                states.sort();
                states.dedup();
            }
            states.into_iter().filter(|(_, held)| held >= n).map(|(used, _)| used).collect()
        }
    }
}

fn identities() -> impl Strategy<Value = Vec<TestIdentity>> {
    prop::collection::vec(prop::collection::btree_set(0..PRINCIPALS, 0..3), 0..5)
}

proptest! {
    #[test]
    fn signature_policies_equal_the_naive_evaluation(tree in tree(), identities in identities()) {
        let expected = naive(&tree, &identities, &BTreeSet::new()).is_some();
        prop_assert_eq!(evaluate(&compile(&tree).unwrap(), &identities), expected);
    }

    /// What is satisfied could be satisfied with each identity in one place: no signature counts twice.
    #[test]
    fn nothing_is_satisfied_without_an_assignment(tree in tree(), identities in identities()) {
        prop_assume!(count(&tree) <= 12);
        if evaluate(&compile(&tree).unwrap(), &identities) {
            prop_assert!(!ways(&tree, &identities, &BTreeSet::new()).is_empty());
        }
    }

    #[test]
    fn implicit_meta_thresholds(held in prop::collection::vec(any::<bool>(), 0..7)) {
        let yes = held.iter().filter(|held| **held).count();
        let all = held.len();
        for (rule, expected) in [
            (ImplicitMetaRule::Any, yes >= 1 || all == 0),
            (ImplicitMetaRule::All, yes == all),
            (ImplicitMetaRule::Majority, 2 * yes > all || all == 0),
        ] {
            let definition = ImplicitMetaPolicy { sub_policy: "Sub".into(), rule: rule.into() };
            let policy = Policy::from_implicit_meta_policy(&definition.encode_to_vec(), |name| {
                assert_eq!(name, "Sub");
                held.iter().map(|held| Arc::new(if *held { always() } else { Policy::Reject })).collect()
            });
            prop_assert_eq!(evaluate(&policy.unwrap(), &[]), expected, "{:?}", rule);
        }
    }

    #[test]
    fn any_bytes_compile_or_give_an_error(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = Policy::from_signature_policy(&bytes);
        let _ = Policy::from_implicit_meta_policy(&bytes, |_| Vec::new());
    }
}

fn always() -> Policy {
    compile(&Tree::Threshold(0, Vec::new())).unwrap()
}

fn count(tree: &Tree) -> usize {
    match tree {
        Tree::Leaf(_) => 1,
        Tree::Threshold(_, rules) => 1 + rules.iter().map(count).sum::<usize>(),
    }
}

#[test]
fn one_signature_satisfies_one_leaf() {
    let both = compile(&Tree::Threshold(2, vec![Tree::Leaf(0), Tree::Leaf(0)])).unwrap();
    let member = TestIdentity::from([0]);
    assert!(!evaluate(&both, std::slice::from_ref(&member)));
    assert!(evaluate(&both, &[member.clone(), member]));
}

#[test]
fn what_does_not_compile() {
    let nested = |depth: usize| (1..depth).fold(Tree::Leaf(0), |tree, _| Tree::Threshold(1, vec![tree]));
    assert!(compile(&nested(RULE_DEPTH_MAX)).is_ok());
    assert_eq!(compile(&nested(RULE_DEPTH_MAX + 1)).unwrap_err(), PolicyFormatError::TooDeep);
    let wide = |count: usize| Tree::Threshold(1, vec![Tree::Leaf(0); count]);
    assert!(compile(&wide(RULES_MAX - 1)).is_ok());
    assert_eq!(compile(&wide(RULES_MAX)).unwrap_err(), PolicyFormatError::TooManyRules);
    let index = PolicyFormatError::Principal { index: 4, principals: 4 };
    assert_eq!(compile(&Tree::Leaf(PRINCIPALS)).unwrap_err(), index);

    let compile =
        |envelope: SignaturePolicyEnvelope| Policy::from_signature_policy(&envelope.encode_to_vec());
    assert_eq!(compile(envelope(None)).unwrap_err(), PolicyFormatError::EmptyRule);
    let empty = SignaturePolicy { r#type: None };
    assert_eq!(compile(envelope(Some(empty))).unwrap_err(), PolicyFormatError::EmptyRule);
    let negative = SignaturePolicy { r#type: Some(Type::SignedBy(-1)) };
    assert!(matches!(compile(envelope(Some(negative))), Err(PolicyFormatError::Principal { index: -1, .. })));
    let later = SignaturePolicyEnvelope { version: 1, ..envelope(Some(encode_rule(&Tree::Leaf(0)))) };
    assert_eq!(compile(later).unwrap_err(), PolicyFormatError::Version(1));
    let unknown = ImplicitMetaPolicy { sub_policy: "Sub".into(), rule: 7 }.encode_to_vec();
    let refused = Policy::from_implicit_meta_policy(&unknown, |_| Vec::new());
    assert_eq!(refused.unwrap_err(), PolicyFormatError::UnknownRule(7));
}
