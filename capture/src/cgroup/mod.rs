//! Which pod and which container a cgroup belongs to, as its path says.
//!
//! The kubelet names a pod's cgroup after the pod's UID, `pod<uid>` (cgroupfs driver) or
//! `kubepods-burstable-pod<uid>.slice` with `_` for `-` (systemd driver); runtimes name a container's after its id, alone or
//! behind a prefix: `docker-ID.scope`, `cri-containerd-ID.scope`, `crio-ID.scope`.

pub mod tree;

/// Whose a cgroup is.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// The pod's UID, with dashes; of a static pod 32 hex digits. Empty if it is none's.
    pub pod: String,
    /// The container's id, 64 hex digits; empty if it is none's.
    pub container: String,
}

impl Member {
    /// Reads a path, of the host's or seen from within a cgroup namespace (`/../../pod<uid>/ID`), also with the mount
    /// before it. The innermost pod counts, and in it the innermost container; what stands above the pod is what its node
    /// runs in.
    pub fn of_path(path: &str) -> Self {
        let mut container = "";
        // A colon stands where a path for systemd was used without it: `kubepods-pod<uid>.slice:cri-containerd:ID`.
        for component in removed(path).rsplit(['/', ':']) {
            if let Some(uid) = pod_uid(component) {
                return Self { pod: uid, container: container.to_string() };
            }
            if container.is_empty() {
                container = container_id(component).unwrap_or_default();
            }
        }
        Self { pod: String::new(), container: container.to_string() }
    }

    /// Whether it is nobody's.
    pub fn is_none(&self) -> bool {
        self.pod.is_empty() && self.container.is_empty()
    }
}

/// What `/proc/PID/cgroup` says of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cgroups {
    /// Path: of v2 where that is not the root, else of the v1 controller that names most.
    pub path: String,
    /// Whose it is.
    pub member: Member,
    /// systemd unit; empty if none.
    pub unit: String,
}

impl Cgroups {
    /// Reads the lines `ID:CONTROLLERS:PATH`; v2 has id 0 and no controllers (cgroups(7)).
    pub fn read(text: &str) -> Self {
        let paths: Vec<&str> = text.lines().filter_map(|line| line.splitn(3, ':').nth(2)).map(removed).collect();
        // On a hybrid host the v2 path is often the root's, while a v1 controller names the container.
        let members = paths.iter().map(|path| Member::of_path(path));
        let known = |member: &Member| (!member.pod.is_empty(), !member.container.is_empty());
        let member = members.reduce(|best, next| if known(&next) > known(&best) { next } else { best });
        let v2 = text.lines().find_map(|line| line.strip_prefix("0::")).map(removed).filter(|path| !is_root(path));
        let path = v2.or_else(|| paths.iter().copied().max_by_key(|path| path.len())).unwrap_or_default();
        Self {
            path: path.to_string(),
            member: member.unwrap_or_default(),
            unit: paths.iter().find_map(|path| unit(path)).unwrap_or_default().to_string(),
        }
    }
}

/// The path of a cgroup that may have been removed while a process was still ending in it.
fn removed(path: &str) -> &str {
    path.strip_suffix(" (deleted)").unwrap_or(path)
}

/// Whether a path is the root, or one above it as a cgroup namespace shows it.
fn is_root(path: &str) -> bool {
    path.split('/').all(|component| matches!(component, "" | ".."))
}

/// The UID in the name of a pod's cgroup: a UUID, or, of a pod from a file on the node, the hash of its configuration (MD5).
fn pod_uid(component: &str) -> Option<String> {
    let name = component.strip_suffix(".slice").unwrap_or(component);
    let uid = match name.rsplit_once("-pod") {
        Some((_, uid)) => uid,
        None => name.strip_prefix("pod")?,
    };
    let parts = uid.split(['-', '_']).map(str::len);
    let is_uid = parts.clone().eq([8, 4, 4, 4, 12]) || parts.eq([32]);
    (is_uid && uid.bytes().all(|byte| matches!(byte, b'-' | b'_') || byte.is_ascii_hexdigit()))
        .then(|| uid.replace('_', "-"))
}

/// The id in the name of a container's cgroup. Runtimes' helpers have cgroups named after the container that they look
/// after (`crio-conmon-ID.scope`).
fn container_id(component: &str) -> Option<&str> {
    let name = component.strip_suffix(".scope").unwrap_or(component);
    let (prefix, id) = name.rsplit_once('-').unwrap_or(("", name));
    (is_container_id(id) && !prefix.ends_with("conmon") && !prefix.ends_with("shim")).then_some(id)
}

/// Whether a text is what containerd, CRI-O and Docker call containers: 64 hex digits.
pub fn is_container_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The innermost systemd unit that is a service.
fn unit(path: &str) -> Option<&str> {
    path.rsplit('/').find(|component| component.ends_with(".service") && !component.starts_with("user@"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const OUTER: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";
    const UID: &str = "4311740f-47d9-46bf-ac88-de6e6448b2b0";
    const ESCAPED: &str = "4311740f_47d9_46bf_ac88_de6e6448b2b0";
    const HASH: &str = "9a1b2c3d4e5f60718293a4b5c6d7e8f9";

    fn is(path: &str, pod: &str, container: &str) {
        assert_eq!(Member::of_path(path), Member { pod: pod.into(), container: container.into() }, "{path}");
    }

    #[test]
    fn pods_and_containers_stand_in_the_paths_of_each_runtime_and_driver() {
        // cgroupfs: burstable, best effort, guaranteed.
        is(&format!("/kubepods/burstable/pod{UID}/{ID}"), UID, ID);
        is(&format!("/kubepods/besteffort/pod{UID}/crio-{ID}"), UID, ID);
        is(&format!("/kubepods/pod{UID}/{ID}"), UID, ID);
        is(&format!("/kubepods/pod{UID}"), UID, "");
        // systemd.
        let slice = format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{ESCAPED}.slice");
        for scope in ["cri-containerd", "crio", "docker"] {
            is(&format!("{slice}/{scope}-{ID}.scope"), UID, ID);
        }
        is(&format!("/kubepods.slice/kubepods-pod{ESCAPED}.slice/crio-{ID}.scope/container"), UID, ID);
        is(&slice, UID, "");
        // runc was given a path for systemd, but not told to use it.
        is(
            &format!("/system.slice/containerd.service/kubepods-besteffort-pod{ESCAPED}.slice:cri-containerd:{ID}"),
            UID,
            ID,
        );
        // Without Kubernetes.
        is(&format!("/docker/{ID}"), "", ID);
        is(&format!("/system.slice/docker-{ID}.scope"), "", ID);
        is(&format!("/machine.slice/libpod-{ID}.scope/container"), "", ID);
    }

    #[test]
    fn static_pods_have_a_hash_for_a_uid() {
        is(&format!("/kubepods/burstable/pod{HASH}/{ID}"), HASH, ID);
        let slice = format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{HASH}.slice");
        is(&format!("{slice}/cri-containerd-{ID}.scope"), HASH, ID);
    }

    #[test]
    fn of_nested_ones_the_innermost_counts() {
        // A node that is a container itself (kind), with either driver; its own processes are the outer container's.
        is(&format!("/docker/{OUTER}/kubelet/kubepods/besteffort/pod{UID}/{ID}"), UID, ID);
        let slice = "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice";
        is(
            &format!("/docker/{OUTER}/{slice}/kubelet-kubepods-burstable-pod{ESCAPED}.slice/cri-containerd-{ID}.scope"),
            UID,
            ID,
        );
        is(&format!("/docker/{OUTER}/kubelet"), "", OUTER);
        is(&format!("/docker/{OUTER}/kubelet/kubepods/pod{UID}"), UID, "");
        // Docker in a pod, systemd in a container.
        is(&format!("/kubepods/burstable/pod{UID}/{OUTER}/docker/{ID}"), UID, ID);
        is(&format!("/kubepods/burstable/pod{UID}/{ID}/system.slice/nginx.service"), UID, ID);
    }

    #[test]
    fn helpers_of_runtimes_are_no_containers() {
        let slice = format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{ESCAPED}.slice");
        is(&format!("{slice}/crio-conmon-{ID}.scope"), UID, "");
        is(&format!("/kubepods/burstable/pod{UID}/crio-conmon-{ID}"), UID, "");
        is(&format!("/machine.slice/libpod-conmon-{ID}.scope"), "", "");
        is(&format!("/system.slice/containerd-shim-{ID}.scope"), "", "");
    }

    #[test]
    fn a_cgroup_namespace_shows_others_from_its_own_place() {
        is(&format!("/../../pod{UID}/{ID}"), UID, ID);
        is(&format!("/../../../burstable/pod{UID}/{ID}"), UID, ID);
        is(&format!("/../../kubepods-besteffort-pod{ESCAPED}.slice/crio-{ID}.scope"), UID, ID);
        is(&format!("/../{ID}"), "", ID);
        let text = format!("9:pids:/../../pod{UID}/{ID}\n0::/../..\n");
        assert_eq!(Cgroups::read(&text).path, format!("/../../pod{UID}/{ID}"));
    }

    #[test]
    fn what_only_looks_like_a_pod_is_none() {
        for path in [
            "/system.slice/nginx.service",
            "/user.slice/user-1000.slice/session-2.scope",
            "/system.slice/podman.service",
            "/kubepods/burstable/pod",
            "/kubepods/burstable/pod4311740f-47d9-46bf-ac88",
            "/kubepods/burstable/podz311740f-47d9-46bf-ac88-de6e6448b2b0",
            "/0123456789abcdef",
            "/",
            "",
        ] {
            is(path, "", "");
        }
    }

    #[test]
    fn a_hybrid_host_names_the_container_in_a_v1_line() {
        let text = format!("4:cpu,cpuacct:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/\n");
        let read = Cgroups::read(&text);
        assert_eq!((read.path, read.member.container, read.unit), (format!("/docker/{ID}"), ID.into(), "".into()));
        // Whichever line says most.
        let text = format!("4:cpu:/docker/{OUTER}\n3:pids:/kubepods/pod{UID}/{ID}\n0::/system.slice/x.service\n");
        let read = Cgroups::read(&text);
        assert_eq!((&*read.member.pod, &*read.member.container), (UID, ID));
        assert_eq!((&*read.path, &*read.unit), ("/system.slice/x.service", "x.service"));
        let text = "1:name=systemd:/system.slice/redis-server.service\n0::/system.slice/redis-server.service\n";
        assert_eq!(Cgroups::read(text).unit, "redis-server.service");
    }

    #[test]
    fn a_process_outlives_its_cgroup() {
        let read = Cgroups::read(&format!("0::/kubepods/burstable/pod{UID}/{ID} (deleted)\n"));
        assert_eq!((&*read.member.pod, &*read.member.container), (UID, ID));
        assert_eq!(read.path, format!("/kubepods/burstable/pod{UID}/{ID}"));
    }
}
