package secret

import (
	"slices"
	"strconv"
	"time"

	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

// State is the state of a version.
type State string

// The states.
const (
	Current   State = "current"
	Previous  State = "previous"
	Pending   State = "pending"
	Disabled  State = "disabled"
	Destroyed State = "destroyed"
)

// record is a secret as it is stored, without values. Once in a space it is never changed.
type record struct {
	Name        ident.SecretName  `json:"name"`
	Description string            `json:"description,omitempty"`
	Created     time.Time         `json:"created"`
	By          ident.PrincipalID `json:"by"`
	Canary      bool              `json:"canary,omitempty"`
	// Reference is where the value is when another store has it.
	Reference string `json:"reference,omitempty"`
	// Next is the number of the next version. Current, Previous and Pending are numbers, 0 for none.
	Next     int `json:"next"`
	Current  int `json:"current,omitempty"`
	Previous int `json:"previous,omitempty"`
	Pending  int `json:"pending,omitempty"`
	// Until is when the previous version becomes disabled.
	Until    time.Time `json:"until,omitzero"`
	Versions []version `json:"versions"`
	Rotation *rotation `json:"rotation,omitempty"`
	// Changes counts the changes of this record.
	Changes uint64 `json:"changes"`
}

// version is one version. Its value never changes.
type version struct {
	Number    int               `json:"n"`
	Key       string            `json:"key"` // the name of its key and of its value
	Created   time.Time         `json:"created"`
	By        ident.PrincipalID `json:"by"`
	Size      int               `json:"size"`
	Origin    string            `json:"origin"` // what made it: OriginSet, OriginRotation, OriginDecoy
	Disabled  bool              `json:"disabled,omitempty"`
	Destroyed *time.Time        `json:"destroyed,omitempty"`
}

// What makes versions.
const (
	OriginSet      = "set"
	OriginRotation = "rotation"
	OriginDecoy    = "decoy"
)

func (r *record) clone() *record {
	if r == nil {
		return nil
	}
	c := *r
	c.Versions = slices.Clone(r.Versions)
	if r.Rotation != nil {
		rot := *r.Rotation
		c.Rotation = &rot
	}
	return &c
}

// version returns the version with a number, or nil.
func (r *record) version(n int) *version {
	for i := range r.Versions {
		if r.Versions[i].Number == n {
			return &r.Versions[i]
		}
	}
	return nil
}

// state returns the state of a version at a time.
func (r *record) state(v *version, now time.Time) State {
	switch {
	case v.Destroyed != nil:
		return Destroyed
	case v.Disabled:
		return Disabled
	case v.Number == r.Current:
		return Current
	case v.Number == r.Previous && now.Before(r.Until):
		return Previous
	case v.Number == r.Pending:
		return Pending
	}
	return Disabled
}

// resolve returns the version that a reference means, if it can be used.
func (r *record) resolve(ref ident.SecretRef, now time.Time) (*version, error) {
	n := 0
	switch ref.Version {
	case ident.VersionCurrent:
		n = r.Current
	case ident.VersionPrevious:
		n = r.Previous
	case ident.VersionPending:
		n = r.Pending
	default:
		var err error
		if n, err = strconv.Atoi(ref.Version); err != nil {
			return nil, unavailable(r.Name, ref.Version, "there is none")
		}
	}
	v := r.version(n)
	if v == nil {
		return nil, unavailable(r.Name, ref.Version, "there is none")
	}
	switch s := r.state(v, now); s {
	case Current, Previous, Pending:
		return v, nil
	case Disabled, Destroyed:
		return nil, unavailable(r.Name, ref.Version, "it is "+string(s))
	}
	return nil, unavailable(r.Name, ref.Version, "it has no state")
}

func unavailable(name ident.SecretName, version, why string) *problem.Error {
	if version == ident.VersionCurrent {
		version = string(Current)
	}
	return problem.New(problem.Conflict, "secret.version_unavailable", "the version %s of the secret %q cannot be used: %s", version, name, why).
		WithHint("see its versions: sallyport secret versions %s", name)
}

// add appends a version, and makes room for it: it returns the keys of the versions that end for it.
func (r *record) add(v version, now time.Time) (ended []string) {
	r.Versions = append(r.Versions, v)
	r.Next = v.Number + 1
	live := 0
	for i := len(r.Versions) - 1; i >= 0; i-- {
		old := &r.Versions[i]
		if old.Destroyed != nil {
			continue
		}
		if live++; live > maxLive && !r.named(old.Number) && old.Number != v.Number {
			old.Destroyed = &now
			ended = append(ended, old.Key)
		}
	}
	for len(r.Versions) > maxKept {
		i := slices.IndexFunc(r.Versions, func(v version) bool { return v.Destroyed != nil })
		if i < 0 {
			break
		}
		r.Versions = slices.Delete(r.Versions, i, i+1)
	}
	return ended
}

// named reports whether a version is current, previous or pending.
func (r *record) named(n int) bool { return n == r.Current || n == r.Previous || n == r.Pending }

// promote brings a version into force; the one before stays usable for the time of grace.
func (r *record) promote(n int, grace time.Duration, now time.Time) {
	if v := r.version(n); v != nil {
		v.Disabled = false
	}
	if r.Pending == n {
		r.Pending = 0
	}
	if r.Current == n {
		return
	}
	r.Previous, r.Until, r.Current = r.Current, now.Add(grace), n
}
