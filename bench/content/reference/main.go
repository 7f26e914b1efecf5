// SPDX-License-Identifier: Apache-2.0

// Command reference serves containerd's own content store, as containerd 1.6's plugin makes it, on a Unix
// socket: what lighter-content is measured against.
package main

import (
	"log"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/containerd/content/local"
	"github.com/containerd/containerd/services/content/contentserver"
	"google.golang.org/grpc"

	"lighter.test/measure"
)

func main() {
	err := measure.Serve(func(server *grpc.Server, root string) error {
		// Labels are kept by containerd's metadata store in front of it: the plugin gives it none to keep.
		store, err := local.NewStore(root)
		if err == nil {
			contentapi.RegisterContentServer(server, contentserver.New(store))
		}
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
}
