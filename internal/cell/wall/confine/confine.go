// Package confine takes from the process it runs in everything that a sandbox engine does not need:
// files, sockets, other programs, privileges. It is called once, at the start of a worker process,
// before any code of a user is in it, and there is no way back: Enter gives the process an empty root, the
// engine opens what it needs, and Apply takes away the rest.
//
// Apply uses what the kernel has, tries then whether it holds, and reports each wall: what is
// reported to stand was tried. Whether a wall that is missing matters is for others to decide.
//
// It is the only package that imports go-landlock, go-seccomp-bpf and libcap's cap. Caller: cell/wall.
package confine

// Wall is one of the walls around a worker process.
type Wall struct {
	Name   string `json:"name"`
	Stands bool   `json:"stands"`
	// Detail says what it holds, or why it does not stand.
	Detail string `json:"detail"`
}

// Report is what Apply found.
type Report struct {
	Walls []Wall `json:"walls"`
	// Namespaces are the process's own, such as "net:[4026531840]": whoever started it compares them
	// with his.
	Namespaces []string `json:"namespaces"`
}

// The names of the walls.
const (
	NamePrivileges   = "privileges"
	NameLimits       = "limits"
	NameRoot         = "root"
	NameFiles        = "landlock"
	NameCalls        = "seccomp"
	NameNamespaces   = "namespaces"
	NameCapabilities = "capabilities"
)

// add notes a wall; it stands when err is nil.
func (r *Report) add(name string, err error, detail string) {
	w := Wall{Name: name, Stands: err == nil, Detail: detail}
	if err != nil {
		w.Detail = err.Error()
	}
	r.Walls = append(r.Walls, w)
}
