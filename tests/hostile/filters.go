// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math/rand"
	"sort"
	"strings"
	"time"

	api "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/filters"
	"google.golang.org/grpc/codes"
)

var filterAttacks = []attack{
	{"filters_are_accepted_and_refused_as_containerd_does", filterTable},
	{"random_filters_select_what_containerd_selects", filterRandom},
	{"huge_and_nested_filters_end_soon", filterHuge},
	{"regular_expressions_cannot_explode", filterBombs},
}

// adapt shows an Info to containerd's own filters as its metadata store does.
func adapt(i *api.Info) filters.Adaptor {
	return filters.AdapterFunc(func(path []string) (string, bool) {
		if len(path) == 0 {
			return "", false
		}
		switch path[0] {
		case "kind":
			return map[api.Kind]string{api.KindActive: "active", api.KindView: "view", api.KindCommitted: "committed"}[i.Kind], true
		case "name":
			return i.Name, true
		case "parent":
			return i.Parent, true
		case "labels":
			v, ok := i.Labels[strings.Join(path[1:], ".")]
			return v, ok
		}
		return "", false
	})
}

// oracle asks containerd's filters which snapshots would be listed; ok is false for a bad filter.
func oracle(t *target, fs []string) (names []string, ok bool) {
	names = []string{}
	f, err := filters.ParseAll(fs...)
	if err != nil {
		return nil, false
	}
	for k, i := range t.population {
		if f.Match(adapt(i)) {
			names = append(names, k)
		}
	}
	sort.Strings(names)
	return names, true
}

func sameAsOracle(t *target, fs ...string) error {
	ctx, cancel := background()
	defer cancel()
	want, ok := oracle(t, fs)
	seen, err := list(ctx, t.api, fs...)
	if !ok {
		return mustCode(fmt.Sprintf("List with the bad filter %q", fs), err, codes.InvalidArgument)
	}
	if err != nil {
		return fmt.Errorf("List with the good filter %q: %v", fs, err)
	}
	got := []string{}
	for k := range seen {
		got = append(got, k)
	}
	sort.Strings(got)
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		return fmt.Errorf("List with %q: %q, containerd selects %q", fs, got, want)
	}
	return nil
}

var filterWords = []string{
	"", "name", "kind", "parent", "labels", "labels.n", "labels.a.b/c", `labels."a.b/c"`, `labels."containerd.io/snapshot/k"`,
	`labels.containerd.io/snapshot/k`, "nofield", "name==bottom", "kind==active", "kind==committed", "kind==ACTIVE", "kind!=view", "parent==", `parent==""`,
	`parent!=""`, "parent==default/1/layer", "labels.n==1", "labels.n!=1", "labels.n~=[0-2]", "labels.n~=/[0-2]/", "labels.n~=|[0-2]|", `labels.n~="[0-2]"`,
	"name~=^active", "name~=/^active-[13]$/", "name~=(", "name~=/(/", "name~=[", "name~=/a{2000}/", "name~=/\\d/", "name~=/(?i)ACTIVE/",
	"name~=/\\pL/", "name~=/(?P<x>a)/", "name~=/(a)\\1/", "name~=/(?=a)/", "name~=/a++/", "name~=/\\C/", "name~=//", "name~=||", "name~=", "name~=/a", "name~=|a",
	"nofield!=x", "nofield==x", "nofield~=.", "nofield~=//", "name==", "name=x", "==x", "=x", "!=x", "~=x", "labels.", ".name", "a..b", "a,", ",a", ",", ",,", "a,,b",
	"kind == active", " kind==active", "kind==active ", "kind==active , name==x", "kind==active, labels.n==1", "kind ==active", "kind== active", "kind=\n=active",
	"kind==active,labels.n==1", "kind==active,kind==view", "name==\"bottom\"", `name=="view \"1\""`, `name=="\x62ottom"`, `name=="\142ottom"`, `name=="\u0062ottom"`,
	`name=="\U00000062ottom"`, `name=="\q"`, `name=="\x6"`, `name=="\400"`, `name=="\ud800"`, `name=="\U00110000"`, `name=="`, `name=="a`, `name=="a\"`, `name=="a\`, `"name"==bottom`,
	`"name"`, `"na\x6de"==bottom`, `name=='bottom'`, "name==`bottom`", "name==bot\"tom\"", `name=="bot"tom`, "name==bottom\"", "name==a=b", "name===a", "name==!a", "name==~a", "name==.a",
	"name==a.b", "name==a;b", "name==/a/", "name==|a|", "name==a|b", "name==(a)", "name==[a]", "name==*", "name==a\tb", "name==ü", "größe==x", "labels.größe", "labels.ü~=x", "9lives", "1==1",
	"_", "a_b", "a-b", "a/b", "a:b", "name!bottom", "name!==bottom", "name~==bottom", "name==bottom==x", "name~=~=", "a==b ,c==d", "a==b\n,c==d", "name\u00a0==bottom", "name==\u00a0bottom",
	"name == \"x\" , ", "\"\"", "\"\"==\"\"", "labels.\"\"", `labels.""==""`, "labels.n.n", "name.x", "name.x==bottom", "kind.x==active", "\\", "\"\\\"", "==", "!=", "~=", "!", "~", "=", ".", "/", "|", "\"",
	"name==\"a\nb\"", "name==\"\t\"", "name~=\"\\\\d\"", "name~=/\\//", "name~=/a\\/b/", "name~=|a\\|b|", "name~=\"a\\\"b\"", "name~=a,b", "name~=/a,b/", "name~=/a b/", "name~=|a/b|", "name~=/a|b/",
}

func filterTable(t *target) error {
	for _, f := range filterWords {
		if err := sameAsOracle(t, f); err != nil {
			return err
		}
	}
	for _, fs := range [][]string{{"kind==active", "kind==view"}, {"", "name==x"}, {"name==x", "name==y"}, {"name==bottom", "=="},
		{"==", "name==bottom"}, {"kind==active,labels.n==1", "name==bottom"}, {""}, {"", ""}} {
		if err := sameAsOracle(t, fs...); err != nil {
			return err
		}
	}
	return nil
}

func filterRandom(t *target) error {
	rng := rand.New(rand.NewSource(*seed))
	pieces := []string{"name", "kind", "parent", "labels", ".", ".", ",", "==", "==", "!=", "~=", "\"", "/", "|", " ", "\\", "active",
		"view", "n", "1", "a.b/c", "bottom", "\"a.b/c\"", "default/1/layer", "[0-9]", "(", ")", "*", "a", "\"x\"", "ü", "\t", "=", "x4"}
	for i := 0; i < 6000; i++ {
		f := ""
		if rng.Intn(3) > 0 {
			f = filterWords[rng.Intn(len(filterWords))]
			if rng.Intn(3) == 0 {
				f += "," + filterWords[rng.Intn(len(filterWords))]
			}
			for n := rng.Intn(3); n > 0; n-- {
				r := []rune(f)
				at := rng.Intn(len(r) + 1)
				p := pieces[rng.Intn(len(pieces))]
				if len(r) > 0 && rng.Intn(2) == 0 {
					at = rng.Intn(len(r))
					f = string(r[:at]) + string(r[at+1:])
				} else {
					f = string(r[:at]) + p + string(r[at:])
				}
			}
		} else {
			for n := 1 + rng.Intn(8); n > 0; n-- {
				f += pieces[rng.Intn(len(pieces))]
			}
		}
		if err := sameAsOracle(t, f); err != nil {
			return err
		}
	}
	return nil
}

// soon lists with filters that may be refused, for being too large, but must not take long or fail otherwise.
func soon(t *target, what string, fs ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	_, err := list(ctx, t.api, fs...)
	return mustCode("List with "+what, err, codes.OK, codes.InvalidArgument, codes.ResourceExhausted)
}

func filterHuge(t *target) error {
	many := make([]string, 100000)
	for i := range many {
		many[i] = "name==x"
	}
	regexes := make([]string, 10000)
	for i := range regexes {
		regexes[i] = fmt.Sprintf("name~=/x{%d}/", i%500)
	}
	for what, fs := range map[string][]string{
		"a path of a million fields":        {strings.Repeat("a.", 1000000) + "a"},
		"a million selectors":               {strings.Repeat("name==x,", 1000000) + "name"},
		"100000 filters":                    many,
		"10000 regular expressions":         regexes,
		"a value of 10 MiB":                 {"name==" + strings.Repeat("x", 10<<20)},
		"a quoted value of 10 MiB":          {`name=="` + strings.Repeat(`\x41`, 10<<18) + `"`},
		"an open quote and 10 MiB":          {`name=="` + strings.Repeat("x", 10<<20)},
		"10 MiB of quotes":                  {strings.Repeat(`"`, 10<<20)},
		"10 MiB of backslashes":             {`name=="` + strings.Repeat(`\`, 10<<20)},
		"10 MiB of spaces":                  {strings.Repeat(" ", 10<<20) + "name"},
		"10 MiB of operators":               {strings.Repeat("=", 10<<20)},
		"100000 opening parentheses":        {"name~=/" + strings.Repeat("(", 100000) + "/"},
		"100000 nested groups":              {"name~=/" + strings.Repeat("(", 100000) + "a" + strings.Repeat(")", 100000) + "/"},
		"100000 nested repeats":             {"name~=/" + strings.Repeat("(", 100000) + "a" + strings.Repeat(")*", 100000) + "/"},
		"a class of 1 MiB":                  {"name~=/[" + strings.Repeat("a-z", 1<<18) + "]/"},
		"an alternation of 200000 branches": {"name~=/" + strings.Repeat("a#", 200000) + "/"},
	} {
		if err := soon(t, what, fs...); err != nil {
			return err
		}
	}
	return soon(t, "an alternation of 100000 branches", "name~=/a"+strings.Repeat("|ab", 100000)+"/")
}

func filterBombs(t *target) error {
	ctx, cancel := background()
	defer cancel()
	long := strings.Repeat("a", 4000)
	if _, err := t.api.Prepare(ctx, &api.PrepareSnapshotRequest{Key: long, Labels: map[string]string{"a": long}}); err != nil {
		return err
	}
	for _, re := range []string{"(a*)*b", "(a+)+$b", "(a|aa)+$b", "(a|a)*b", "(.*)*b", "(.*a){25}b", "a*a*a*a*a*a*a*a*a*a*b", "(a?){60}a{60}b", "((a*)*)*b",
		"(x+x+)+y", "((a{1,30}){1,30}){1,30}", "((a{1,100}){1,100}){1,100}", "(((((((((a{10}){10}){10}){10}){10}){10}){10}){10}){10}){10}", "a{1000}",
		"a{1001}", "(a{1000}){1000}", "[\\x{0}-\\x{10ffff}]{1000}", "\\pL{1000}", "(?i:\\pL){1000}", "(\\pL|\\pN|\\pS){500}b", ".{1000}.{1000}.{1000}.{1000}b"} {
		for _, f := range []string{"labels.a~=/" + re + "/", "name~=|" + strings.ReplaceAll(re, "|", "\\|") + "|"} {
			begin := time.Now()
			if err := soon(t, "the regular expression "+re, f); err != nil {
				return err
			}
			if *verbose {
				fmt.Printf("     %s: %v\n", f, time.Since(begin).Round(time.Millisecond))
			}
		}
	}
	// All at once, so that they would keep every worker busy.
	errs := make(chan error)
	const n = 64
	for i := 0; i < n; i++ {
		go func() { errs <- soon(t, "(.*)*b, many at a time", "labels.a~=/(.*)*b/,labels.a~=/(a?){60}a{60}b/") }()
	}
	for i := 0; i < n; i++ {
		if err := <-errs; err != nil {
			return err
		}
	}
	return t.removeOthers()
}
