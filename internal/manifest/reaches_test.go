package manifest_test

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"sallyport/internal/manifest"
)

// TestReachesTellsEverything: whatever changes in a grant is seen in what it reaches or in its bounds, which the permission diff compares.
func TestReachesTellsEverything(t *testing.T) {
	t.Parallel()
	for _, of := range []struct {
		name  string
		value any
		grant func(v any) manifest.Grant
	}{
		{"http", manifest.HTTPGrant{}, func(v any) manifest.Grant { g := v.(manifest.HTTPGrant); return manifest.Grant{HTTP: &g} }},
		{"auth", manifest.HTTPAuth{}, func(v any) manifest.Grant {
			return manifest.Grant{HTTP: &manifest.HTTPGrant{Auth: v.(manifest.HTTPAuth)}}
		}},
		{"sql", manifest.SQLGrant{}, func(v any) manifest.Grant { g := v.(manifest.SQLGrant); return manifest.Grant{SQL: &g} }},
		{"kv", manifest.KVGrant{}, func(v any) manifest.Grant { g := v.(manifest.KVGrant); return manifest.Grant{KV: &g} }},
		{"blob", manifest.BlobGrant{}, func(v any) manifest.Grant { g := v.(manifest.BlobGrant); return manifest.Grant{Blob: &g} }},
		{"secret", manifest.SecretGrant{}, func(v any) manifest.Grant { g := v.(manifest.SecretGrant); return manifest.Grant{Secret: &g} }},
		{"invoke", manifest.InvokeGrant{}, func(v any) manifest.Grant { g := v.(manifest.InvokeGrant); return manifest.Grant{Invoke: &g} }},
		{"identity", manifest.IdentityGrant{}, func(v any) manifest.Grant { g := v.(manifest.IdentityGrant); return manifest.Grant{Identity: &g} }},
		{"limits", manifest.GrantLimits{}, func(v any) manifest.Grant {
			return manifest.Grant{Limits: v.(manifest.GrantLimits), Invoke: &manifest.InvokeGrant{}}
		}},
	} {
		before := of.grant(of.value)
		for i := range reflect.TypeOf(of.value).NumField() {
			field := reflect.TypeOf(of.value).Field(i)
			changed := reflect.New(reflect.TypeOf(of.value)).Elem()
			fill(changed.Field(i))
			if field.Name == "URL" { // shown with each method
				changed.FieldByName("Methods").Set(reflect.ValueOf([]string{"GET"}))
			}
			after := of.grant(changed.Interface())
			if slices.Equal(before.Reaches(), after.Reaches()) && slices.Equal(before.Bounds(), after.Bounds()) {
				t.Errorf("%s: a change of %s is not seen: %q", of.name, field.Name, after.Reaches())
			}
		}
	}
}

// fill gives a value something that is not its zero.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Int, reflect.Int64:
		v.SetInt(3)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key)
		fill(value)
		v.SetMapIndex(key, value)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[netip.Prefix]() {
			v.Set(reflect.ValueOf(netip.MustParsePrefix("10.0.0.0/8")))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	}
}
