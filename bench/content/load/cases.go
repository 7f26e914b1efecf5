// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"math/rand"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/containerd/content"
	"github.com/containerd/containerd/content/proxy"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"lighter.test/measure"
)

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
)

// Names of cases; a case with clients has their number appended.
const (
	ingestSmall = "ingest 16K"
	ingestMid   = "ingest 1M"
	ingestLarge = "ingest 256M"
	fetchMid    = "fetch 1M"
	fetchLarge  = "fetch 256M"
	walkLarge   = "walk 32K"
	hashAlone   = "sha256"
	cClient     = "fetch in C"
	caseWrite   = "cpu write"
	caseRead    = "cpu read"
	casePrivate = "private"
	caseRss     = "rss"
)

// overHash are the time of the large ingests, with so many clients, over that of the digest alone.
var overHash = map[int]string{1: "over sha256/1", 4: "over sha256/4"}

func withClients(name string, clients int) string {
	return fmt.Sprintf("%s/%d", name, clients)
}

// sizes are what a run works with.
type sizes struct {
	small, mid, large  int // blobs
	largeBytes         int
	fetches, walkBytes int
	privateClients     int
}

func sizesOf(o *options) sizes {
	if o.quick {
		return sizes{small: 100, mid: 10, large: 2, largeBytes: 32 * mib, fetches: 50, walkBytes: 8 * mib,
			privateClients: 8}
	}
	return sizes{small: 1000, mid: 100, large: 4, largeBytes: 256 * mib, fetches: 1000, walkBytes: 64 * mib,
		privateClients: 8}
}

// source is random bytes that blobs are made of: a number, which makes each of them another one, and the
// beginning of these.
var source []byte

func makeSource(n int) {
	if len(source) < n {
		source = make([]byte, n)
		rand.New(rand.NewSource(1)).Read(source)
	}
}

// blob is one to be written. Its digest is computed before anything is measured.
type blob struct {
	head [16]byte
	size int
	desc ocispec.Descriptor
}

func makeBlobs(kind, n, size int) []blob {
	blobs := make([]blob, n)
	for i := range blobs {
		b := &blobs[i]
		binary.BigEndian.PutUint64(b.head[:8], uint64(kind))
		binary.BigEndian.PutUint64(b.head[8:], uint64(i))
		b.size = size
		digester := digest.SHA256.Digester()
		io.Copy(digester.Hash(), b.reader())
		b.desc = ocispec.Descriptor{Digest: digester.Digest(), Size: int64(size)}
	}
	return blobs
}

func (b *blob) reader() io.Reader {
	// Behind a struct of its own, it is not taken for a WriterTo: the bytes come as from a network.
	return struct{ io.Reader }{io.MultiReader(bytes.NewReader(b.head[:]),
		bytes.NewReader(source[len(b.head):b.size]))}
}

// is tells whether p holds what b does from offset on.
func (b *blob) is(p []byte, offset int) bool {
	for ; offset < len(b.head) && len(p) > 0; offset, p = offset+1, p[1:] {
		if p[0] != b.head[offset] {
			return false
		}
	}
	return bytes.Equal(p, source[offset:offset+len(p)])
}

// server is one of the two, and its blobs.
type server struct {
	*measure.Server
	cs  content.Store
	api contentapi.ContentClient
}

func startServer(o *options, which int) (*server, error) {
	s, err := measure.StartServer(which, serverNames[which], o.exe[which], o.dir)
	if err != nil {
		return nil, err
	}
	api := contentapi.NewContentClient(s.Conn)
	return &server{Server: s, api: api, cs: proxy.NewContentStore(api)}, nil
}

// runRound starts both servers and takes every case to the one and then to the other, the first in turns: what
// the machine does meanwhile meets both.
func runRound(o *options, round int, res *measure.Results) error {
	ctx := context.Background()
	var servers [2]*server

	order := []int{measure.Ours, measure.Reference}
	if round%2 == 1 {
		order = []int{measure.Reference, measure.Ours}
	}
	defer func() {
		for _, s := range servers {
			if s != nil {
				s.Remove()
			}
		}
	}()
	size := sizesOf(o)
	makeSource(size.largeBytes)
	for _, which := range order {
		s, err := startServer(o, which)
		if err != nil {
			return err
		}
		servers[which] = s
		if err := s.warmUp(ctx); err != nil {
			return err
		}
	}

	type step struct {
		name string
		run  func(s *server) error
	}
	var steps []step
	kind := 0
	ingest := func(name string, n, bytes, clients int) {
		kind++
		blobs := makeBlobs(kind, n, bytes)
		name = withClients(name, clients)
		steps = append(steps, step{name, func(s *server) error {
			return s.ingest(ctx, name, blobs, clients, res)
		}})
	}
	ingest(ingestSmall, size.small, 16*kib, 1)
	ingest(ingestSmall, size.small, 16*kib, 8)
	ingest(ingestMid, size.mid, mib, 1)
	ingest(ingestMid, size.mid, mib, 8)
	ingest(ingestLarge, size.large, size.largeBytes, 1)
	ingest(ingestLarge, size.large, size.largeBytes, 4)
	kind++
	fetched := makeBlobs(kind, 32, mib)
	large := makeBlobs(kind+1, 1, size.largeBytes)
	steps = append(steps,
		step{fetchMid, func(s *server) error { return s.fetchMids(ctx, fetched, size.fetches, res) }},
		step{fetchLarge, func(s *server) error { return s.fetchLarge(ctx, &large[0], size.large, res) }},
		step{walkLarge, func(s *server) error { return s.walk(ctx, &large[0], size.walkBytes, res) }},
		step{casePrivate, func(s *server) error { return s.weigh(ctx, size, res) }})

	for _, step := range steps {
		if !strings.HasPrefix(step.name, o.only) {
			continue
		}
		for _, which := range order {
			// What one case leaves to be written back must not be paid by the next.
			if err := measure.SyncDisk(o.dir); err != nil {
				return err
			}
			runtime.GC()
			if err := step.run(servers[which]); err != nil {
				return fmt.Errorf("%s, %s: %w", serverNames[which], step.name, err)
			}
			if err := servers[which].empty(ctx); err != nil {
				return fmt.Errorf("%s, after %s: %w", serverNames[which], step.name, err)
			}
		}
		if got := res.Of[step.name]; got != nil {
			a, b := got[measure.Ours][round], got[measure.Reference][round]
			log.Printf("  %-14s %12.1f %12.1f  %.2fx  p99 %v %v  cpu %v %v  server %.2f client %.2f idle %.2f", step.name,
				a.Value, b.Value, a.Value/b.Value, a.P99.Round(10*time.Microsecond),
				b.P99.Round(10*time.Microsecond), a.CPU, b.CPU, a.Server, a.Client, a.Idle)
		}
	}
	return alone(o, servers[measure.Ours], &large[0], res)
}

func (s *server) warmUp(ctx context.Context) error {
	err := s.ingest(ctx, "", makeBlobs(1<<20, 200, 16*kib), 8, measure.NewResults())
	if err == nil {
		err = s.empty(ctx)
	}
	return err
}

// empty deletes what a case has left, looking whether it is all there.
func (s *server) empty(ctx context.Context) error {
	var all []digest.Digest
	err := s.cs.Walk(ctx, func(info content.Info) error {
		all = append(all, info.Digest)
		return nil
	})
	for i := 0; err == nil && i < len(all); i++ {
		err = s.cs.Delete(ctx, all[i])
	}
	return err
}

// check reads every blob back, which is not measured.
func (s *server) check(ctx context.Context, blobs []blob) error {
	p := make([]byte, mib)
	for i := range blobs {
		b := &blobs[i]
		ra, err := s.cs.ReaderAt(ctx, b.desc)
		if err != nil {
			return err
		}
		if ra.Size() != int64(b.size) {
			return fmt.Errorf("%s has %d bytes", b.desc.Digest, ra.Size())
		}
		for at := 0; at < b.size; at += len(p) {
			n, err := ra.ReadAt(p, int64(at))
			if err != nil && !(err == io.EOF && at+n == b.size) {
				return err
			}
			if !b.is(p[:n], at) {
				return fmt.Errorf("%s has other bytes behind %d", b.desc.Digest, at)
			}
		}
		ra.Close()
	}
	return nil
}

// ingest writes blobs as a pull does: containerd's own Copy, a writer for each of them.
func (s *server) ingest(ctx context.Context, name string, blobs []blob, clients int,
	res *measure.Results) error {
	got, err := s.Share(ctx, len(blobs), clients, func(ctx context.Context, _, i int) error {
		b := &blobs[i]
		return content.WriteBlob(ctx, s.cs, "layer-"+b.desc.Digest.String(), b.reader(), b.desc)
	})
	if err != nil {
		return err
	}
	res.Add(name, s.Which, got)
	if clients == 1 && blobs[0].size >= 32*mib {
		res.Add(caseWrite, s.Which, measure.Sample{
			Value: got.CPU.Seconds() * gib / float64(blobs[0].size)})
	}
	return s.check(ctx, blobs)
}

// put writes blobs for the cases that read.
func (s *server) put(ctx context.Context, blobs []blob) error {
	for i := range blobs {
		b := &blobs[i]
		if err := content.WriteBlob(ctx, s.cs, "layer", b.reader(), b.desc); err != nil {
			return err
		}
	}
	return s.check(ctx, blobs)
}

// fetchMids reads whole blobs, in one call each.
func (s *server) fetchMids(ctx context.Context, blobs []blob, n int, res *measure.Results) error {
	if err := s.put(ctx, blobs); err != nil {
		return err
	}
	got, err := s.Share(ctx, n, 1, func(ctx context.Context, _, i int) error {
		return s.fetch(ctx, &blobs[i%len(blobs)])
	})
	if err == nil {
		res.Add(fetchMid, s.Which, got)
	}
	return err
}

func (s *server) fetchLarge(ctx context.Context, b *blob, n int, res *measure.Results) error {
	if err := s.put(ctx, []blob{*b}); err != nil {
		return err
	}
	got, err := s.Share(ctx, n, 1, func(ctx context.Context, _, _ int) error { return s.fetch(ctx, b) })
	if err == nil {
		res.Add(fetchLarge, s.Which, got)
		res.Add(caseRead, s.Which, measure.Sample{Value: got.CPU.Seconds() * gib / float64(b.size)})
	}
	return err
}

// fetch is one Read call, whose answers are looked at, and dropped.
func (s *server) fetch(ctx context.Context, b *blob) error {
	stream, err := s.api.Read(ctx, &contentapi.ReadContentRequest{Digest: b.desc.Digest})
	if err != nil {
		return err
	}
	at := 0
	for {
		msg, err := stream.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		edge := len(msg.Data)
		if edge > 64 {
			edge = 64
		}
		if int(msg.Offset) != at || at+len(msg.Data) > b.size || !b.is(msg.Data[:edge], at) {
			return fmt.Errorf("%s: wrong bytes at %d", b.desc.Digest, at)
		}
		at += len(msg.Data)
	}
	if at != b.size {
		return fmt.Errorf("%s: %d bytes of %d", b.desc.Digest, at, b.size)
	}
	return nil
}

// walk reads as the walking differ, import and push do: 32 KiB after 32 KiB, a call each.
func (s *server) walk(ctx context.Context, b *blob, walkBytes int, res *measure.Results) error {
	if err := s.put(ctx, []blob{*b}); err != nil {
		return err
	}
	ra, err := s.cs.ReaderAt(ctx, b.desc)
	if err != nil {
		return err
	}
	defer ra.Close()
	const piece = 32 * kib
	p := make([]byte, piece)
	got, err := s.Share(ctx, walkBytes/piece, 1, func(ctx context.Context, _, i int) error {
		n, err := ra.ReadAt(p, int64(i)*piece)
		if err != nil {
			return err
		}
		if n != piece || !b.is(p[:64], i*piece) {
			return fmt.Errorf("wrong bytes at %d", i*piece)
		}
		return nil
	})
	if err == nil {
		res.Add(walkLarge, s.Which, got)
	}
	return err
}

// weigh has clients write large blobs at a time, and tells the most memory that the server had meanwhile.
func (s *server) weigh(ctx context.Context, size sizes, res *measure.Results) error {
	var (
		wait         sync.WaitGroup
		stop         = make(chan struct{})
		private, rss float64
		failure      error
	)
	look := func() {
		p, r, err := s.Memory()
		if err != nil {
			failure = err
		}
		if p > private {
			private = p
		}
		if r > rss {
			rss = r
		}
	}
	wait.Add(1)
	go func() {
		defer wait.Done()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for failure == nil {
			look()
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
	blobs := makeBlobs(1<<21, size.privateClients, size.largeBytes/4)
	_, err := s.Share(ctx, len(blobs), size.privateClients, func(ctx context.Context, _, i int) error {
		b := &blobs[i]
		return content.WriteBlob(ctx, s.cs, b.desc.Digest.String(), b.reader(), b.desc)
	})
	close(stop)
	wait.Wait()
	if err != nil {
		return err
	}
	if failure != nil {
		return failure
	}
	res.Add(casePrivate, s.Which, measure.Sample{Value: private})
	res.Add(caseRss, s.Which, measure.Sample{Value: rss})
	return nil
}

// alone measures what has no counterpart: the cost of the digest, and a client in C.
func alone(o *options, s *server, b *blob, res *measure.Results) error {
	if strings.HasPrefix(hashAlone, o.only) {
		rate, err := clientRate(o.client, "sha256", strconv.Itoa(b.size*4))
		if err != nil {
			return err
		}
		res.Add(hashAlone, measure.Ours, measure.Sample{Value: rate})
		log.Printf("  %-14s %12.1f", hashAlone, rate/mib)
		for clients, name := range overHash {
			if all := res.Of[withClients(ingestLarge, clients)]; all != nil {
				last := all[measure.Ours][len(all[measure.Ours])-1]
				res.Add(name, measure.Ours, measure.Sample{Value: rate / last.Value / float64(b.size)})
			}
		}
	}
	if strings.HasPrefix(cClient, o.only) {
		if err := s.put(context.Background(), []blob{*b}); err != nil {
			return err
		}
		rate, err := clientRate(o.client, "fetch", s.Socket, b.desc.Digest.String(), "4")
		if err != nil {
			return err
		}
		res.Add(cClient, measure.Ours, measure.Sample{Value: rate})
		log.Printf("  %-14s %12.1f", cClient, rate/mib)
	}
	return nil
}

// clientRate runs the client in C, which prints bytes per second.
func clientRate(exe string, args ...string) (float64, error) {
	out, err := exec.Command(exe, args...).Output()
	if err != nil {
		return 0, fmt.Errorf("%s %v: %w", exe, args, err)
	}
	return strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
}
