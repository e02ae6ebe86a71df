//! Scripts for the futures of one thread: asked for, and waited for until they end or their time is up.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{News, Order, Scripts, Told, Want};
use crate::os::wake::WakeFd;
use crate::pipeline::{Bell, Receiver, Sender};
use crate::probe::errand::ErrandEnd;
use crate::units::limits::{SCRIPT_GRACE, SCRIPT_KILL_WAIT};
use crate::units::{Generation, Slot, Span};

/// What such a thread is given. The bell is the door's, and that of the news.
#[derive(Debug)]
pub struct Mailbox {
    pub scripts: Scripts,
    pub door: WakeFd,
    pub bell: Bell,
}

/// What came of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, or it did not begin.
    End(ErrandEnd),
    /// Its time was up, and it was killed.
    Overdue,
    /// No more scripts are run: the daemon ends.
    Stopped,
}

type Waiting = BTreeMap<u32, oneshot::Sender<ErrandEnd>>;

/// Scripts waited for are bounded by the orders' queue, and by whoever asks for them.
#[derive(Debug)]
pub struct Runner {
    orders: RefCell<Option<Sender<Order>>>,
    waiting: Rc<RefCell<Waiting>>,
    /// Of the last order. Numbers are used again only after four billions.
    last: RefCell<u32>,
}

impl Runner {
    /// To be called within the thread's runtime, which must have local tasks.
    ///
    /// # Errors
    /// When the runtime cannot poll the door.
    pub fn start(mailbox: Mailbox) -> io::Result<Self> {
        let Mailbox { scripts: Scripts { orders, news }, door, bell } = mailbox;
        let waiting = Rc::new(RefCell::new(Waiting::new()));
        let door = door.into_async()?;
        let listener = listen(Rc::clone(&waiting), news, bell, door);
        tokio::task::spawn_local(async move {
            if let Err(error) = listener.await {
                tracing::error!(%error, "nobody hears of scripts that end: notices to scripts are not delivered any more");
            }
        });
        Ok(Self { orders: RefCell::new(Some(orders)), waiting, last: RefCell::new(0) })
    }

    /// Runs a script. When `limit` has passed it is asked to end, and killed if it does not; that takes
    /// [`SCRIPT_GRACE`] and [`SCRIPT_KILL_WAIT`] at most.
    pub async fn run(&self, told: Told, limit: Span) -> Ended {
        let (sender, mut ended) = oneshot::channel();
        let generation = {
            let mut last = self.last.borrow_mut();
            *last = last.wrapping_add(1);
            Generation(*last)
        };
        self.waiting.borrow_mut().insert(generation.0, sender);
        if let Err(why) = self.order(generation, Want::Tell(Box::new(told))) {
            self.waiting.borrow_mut().remove(&generation.0);
            return why;
        }
        match timeout(limit.into(), &mut ended).await {
            Ok(Ok(end)) => return Ended::End(end),
            Ok(Err(_)) => return Ended::Stopped,
            Err(_) => {}
        }
        // Where there is no room for it, the script goes on, and its end finds nobody.
        let _ = self.order(generation, Want::Recall);
        let patience = Span::from_nanos(2 * (SCRIPT_GRACE.as_nanos() + SCRIPT_KILL_WAIT.as_nanos()));
        let end = timeout(patience.into(), ended).await;
        self.waiting.borrow_mut().remove(&generation.0);
        match end {
            // It came to its end in that moment.
            Ok(Ok(end @ ErrandEnd::Exited { .. })) => Ended::End(end),
            Ok(_) | Err(_) => Ended::Overdue,
        }
    }

    /// No more scripts: those that run are brought to their end.
    pub fn end(&self) {
        drop(self.orders.borrow_mut().take());
        self.waiting.borrow_mut().clear();
    }

    fn order(&self, generation: Generation, want: Want) -> Result<(), Ended> {
        let mut orders = self.orders.borrow_mut();
        let Some(orders) = orders.as_mut().filter(|orders| !orders.is_closed()) else { return Err(Ended::Stopped) };
        let order = Order { slot: Slot(0), generation, want };
        orders.send(order).map_err(|_| Ended::End(ErrandEnd::Refused(crate::ring::Errno::EAGAIN)))
    }
}

async fn listen(
    waiting: Rc<RefCell<Waiting>>,
    mut news: Receiver<News>,
    bell: Bell,
    door: tokio::io::unix::AsyncFd<WakeFd>,
) -> io::Result<()> {
    while !news.is_finished() {
        while let Some(news) = news.recv() {
            if let News::Returned { generation, end, .. } = news
                && let Some(waiting) = waiting.borrow_mut().remove(&generation.0)
            {
                // Who does not want to know any more has gone.
                let _ = waiting.send(*end);
            }
        }
        bell.declare_sleep();
        if news.is_empty() && !news.is_finished() {
            door.readable().await?.clear_ready();
            door.get_ref().clear();
        }
        bell.declare_awake();
    }
    waiting.borrow_mut().clear();
    Ok(())
}
