#pragma once
#include <cstdint>
#include <utility>
#include <vector>

namespace tinyserve {

/// Doubly linked lists of pages, each page in at most one. All operations O(1); memory 8 bytes a page and a list.
class PageLists {
 public:
  PageLists(int32_t num_pages, int32_t num_lists) : num_pages_(num_pages), links_(num_pages + num_lists) {
    for (int32_t i = 0; i < num_lists; ++i) links_[num_pages + i] = {num_pages + i, num_pages + i};
  }

  bool contains(int32_t page) const { return links_[page].next >= 0; }
  bool empty(int32_t list) const { return front(list) < 0; }
  /// -1: none.
  int32_t front(int32_t list) const { return page_or_none(links_[num_pages_ + list].next); }
  int32_t back(int32_t list) const { return page_or_none(links_[num_pages_ + list].previous); }
  /// The page before `page` in its list, or -1.
  int32_t previous(int32_t page) const { return page_or_none(links_[page].previous); }
  /// The page after `page` in its list, or -1.
  int32_t next(int32_t page) const { return page_or_none(links_[page].next); }

  void push_back(int32_t list, int32_t page) { link_before(num_pages_ + list, page); }
  /// Of the page's list; it must be in one.
  void remove(int32_t page) {
    const Link link = std::exchange(links_[page], Link{});
    links_[link.previous].next = link.next;
    links_[link.next].previous = link.previous;
  }
  /// Puts `other`, which is in no list, into the place of `page`, which leaves it.
  void replace(int32_t page, int32_t other) {
    const Link link = std::exchange(links_[page], Link{});
    links_[other] = link;
    links_[link.previous].next = links_[link.next].previous = other;
  }
  /// Moves all of `from` before what is in `to`.
  void prepend_all(int32_t to, int32_t from) {
    Link& source = links_[num_pages_ + from];
    if (source.next == num_pages_ + from) return;
    const Link taken = std::exchange(source, Link{num_pages_ + from, num_pages_ + from});
    Link& head = links_[num_pages_ + to];
    links_[taken.previous].next = head.next;
    links_[head.next].previous = taken.previous;
    links_[taken.next].previous = num_pages_ + to;
    head.next = taken.next;
  }

 private:
  struct Link {
    int32_t previous = -1, next = -1;
  };
  int32_t page_or_none(int32_t at) const { return at < num_pages_ ? at : -1; }
  void link_before(int32_t at, int32_t page) {
    links_[page] = {links_[at].previous, at};
    links_[links_[at].previous].next = page;
    links_[at].previous = page;
  }

  int32_t num_pages_;
  std::vector<Link> links_;  // [num_pages + num_lists]; a list's own link points to its last and first page
};

}  // namespace tinyserve
