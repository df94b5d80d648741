package guest

import (
	"encoding/json"
	"fmt"
	"iter"
	"time"
)

// KV is a grant of kind kv: values under keys, each JSON or bytes.
type KV struct {
	c     *Context
	grant string
}

// KV returns a grant of kind kv by its name.
func (c *Context) KV(grant string) KV { return KV{c, grant} }

// KVEntry is a value with its version, which is of this value of the key and never used again.
type KVEntry struct {
	Version uint64 `json:"version"`
	// Expires is the zero time when the value stays.
	Expires time.Time `json:"expires"`
	// Value is JSON; it is nil when the value is Bytes.
	Value json.RawMessage `json:"value"`
	Bytes []byte          `json:"-"`
}

// Decode decodes the value into to, which is a *[]byte for bytes.
func (e *KVEntry) Decode(to any) error {
	if e.Value != nil {
		return json.Unmarshal(e.Value, to)
	}
	b, ok := to.(*[]byte)
	if !ok {
		return fmt.Errorf("the value is bytes, not JSON: it can be decoded into a *[]byte, and not into a %T", to)
	}
	*b = e.Bytes
	return nil
}

// KVKey is a key in a list.
type KVKey struct {
	Key     string    `json:"key"`
	Version uint64    `json:"version"`
	Size    int64     `json:"size"`
	Expires time.Time `json:"expires"`
}

// kvWire is a request as the host reads it.
type kvWire struct {
	Key     string  `json:"key,omitempty"`
	Value   any     `json:"value,omitempty"`
	Version *uint64 `json:"version,omitempty"`
	TTL     float64 `json:"ttl,omitempty"`
	By      *int64  `json:"by,omitempty"`
}

// Entry returns what a key has, and nil when it has nothing.
func (k KV) Entry(key string) (*KVEntry, error) {
	a, err := k.c.Call(k.grant, "get", kvWire{Key: key}, nil)
	if err != nil {
		return nil, err
	}
	var e *KVEntry
	if err := a.Decode(&e); err != nil || e == nil {
		return nil, err
	}
	e.Bytes = a.Body
	return e, nil
}

// Get decodes the value of a key into to, and reports whether there is one.
func (k KV) Get(key string, to any) (bool, error) {
	e, err := k.Entry(key)
	if err != nil || e == nil {
		return false, err
	}
	return true, e.Decode(to)
}

// Set gives a key a value, as JSON or, of a []byte, as bytes, and returns its version. A ttl of 0 is that of the grant.
func (k KV) Set(key string, value any, ttl time.Duration) (version uint64, err error) {
	_, version, err = k.put("set", kvWire{Key: key, TTL: ttl.Seconds()}, value)
	return version, err
}

// CompareAndSet is Set for a key whose value has a version, 0 for none. When it has another, nothing changes; now is the version that there is then.
func (k KV) CompareAndSet(key string, version uint64, value any, ttl time.Duration) (set bool, now uint64, err error) {
	return k.put("compareAndSet", kvWire{Key: key, Version: &version, TTL: ttl.Seconds()}, value)
}

func (k KV) put(op string, w kvWire, value any) (set bool, version uint64, err error) {
	body, binary := value.([]byte)
	if !binary {
		text, err := json.Marshal(value)
		if err != nil {
			return false, 0, fmt.Errorf("encode the value for the grant %s: %w", k.grant, err)
		}
		w.Value = json.RawMessage(text)
	} else if body == nil {
		body = []byte{}
	}
	a, err := k.c.Call(k.grant, op, w, body)
	if err != nil {
		return false, 0, err
	}
	var r struct {
		Set     bool   `json:"set"`
		Version uint64 `json:"version"`
	}
	err = a.Decode(&r)
	return r.Set, r.Version, err
}

// Delete deletes what a key has, and reports whether there was something.
func (k KV) Delete(key string) (bool, error) { return remove(k.c, k.grant, kvWire{Key: key}) }

// DeleteVersion is Delete for a key whose value has a version.
func (k KV) DeleteVersion(key string, version uint64) (bool, error) {
	return remove(k.c, k.grant, kvWire{Key: key, Version: &version})
}

// remove deletes what a request names, and reports whether there was something.
func remove(c *Context, grant string, request any) (bool, error) {
	a, err := c.Call(grant, "delete", request, nil)
	if err != nil {
		return false, err
	}
	var r struct {
		Deleted bool `json:"deleted"`
	}
	err = a.Decode(&r)
	return r.Deleted, err
}

// Increment adds to the integer that a key has, 0 when it has nothing, and returns the sum.
func (k KV) Increment(key string, by int64, ttl time.Duration) (int64, error) {
	a, err := k.c.Call(k.grant, "increment", kvWire{Key: key, By: &by, TTL: ttl.Seconds()}, nil)
	if err != nil {
		return 0, err
	}
	var r struct {
		Value int64 `json:"value"`
	}
	err = a.Decode(&r)
	return r.Value, err
}

// Keys yields the keys that begin with a prefix, in order. An error ends it.
func (k KV) Keys(prefix string) iter.Seq2[KVKey, error] {
	return pages(k.c, k.grant, prefix, func(a *Answer) ([]KVKey, string, error) {
		var r struct {
			Keys  []KVKey `json:"keys"`
			After string  `json:"after"`
		}
		err := a.Decode(&r)
		return r.Keys, r.After, err
	})
}

// pages yields what a list has, page by page.
func pages[T any](c *Context, grant, prefix string, read func(*Answer) (page []T, after string, err error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		request := struct {
			Prefix string `json:"prefix,omitempty"`
			After  string `json:"after,omitempty"`
		}{Prefix: prefix}
		for {
			var page []T
			a, err := c.Call(grant, "list", request, nil)
			if err == nil {
				page, request.After, err = read(a)
			}
			if err != nil {
				yield(*new(T), err)
				return
			}
			for _, one := range page {
				if !yield(one, nil) {
					return
				}
			}
			if request.After == "" {
				return
			}
		}
	}
}
