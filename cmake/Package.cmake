# SPDX-License-Identifier: Apache-2.0
# A Debian package of what cmake --install installs: cpack -G DEB. dpkg-shlibdeps finds what it depends on.
set(LIGHTER_MAINTAINER "lighter maintainers <root@localhost>" CACHE STRING "Maintainer of the Debian package")

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME lighter)
set(CPACK_PACKAGE_CONTACT ${LIGHTER_MAINTAINER})
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "storage plugins for containerd, out of process")
set(CPACK_PACKAGE_DESCRIPTION
"lighter-overlay is a snapshotter on overlayfs, lighter-content a content store.
Each is a daemon of its own on a Unix socket, which containerd reaches through
a proxy_plugins entry of its config.toml. Nothing is enabled or started by the
installation: README.md says how to register them.")
# Units name the executables by the prefix that was configured.
set(CPACK_PACKAGING_INSTALL_PREFIX ${CMAKE_INSTALL_PREFIX})
set(CPACK_STRIP_FILES ON)

set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION admin)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_ENHANCES "containerd, containerd.io")
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA
	${CMAKE_SOURCE_DIR}/packaging/debian/conffiles
	${CMAKE_SOURCE_DIR}/packaging/debian/postinst
	${CMAKE_SOURCE_DIR}/packaging/debian/prerm
	${CMAKE_SOURCE_DIR}/packaging/debian/postrm)
# What only a package has: see there.
set(CPACK_PRE_BUILD_SCRIPTS ${CMAKE_SOURCE_DIR}/packaging/debian/files.cmake)

include(CPack)
