//! Links the functions that can be steps a second time over, so that the fuel is read at the one moment from which it is billed: when the answer of
//! the last recorded step goes to the guest. Only the store knows the fuel, and the bindings hand their functions its data alone.

use wasmtime::{
    StoreContextMut,
    component::{ComponentNamedList, Lift, Linker, Lower},
};

use super::base::{Base, Get};

/// What a function that waits returns.
pub(super) type Later<'a, R> = std::pin::Pin<Box<dyn Future<Output = wasmtime::Result<R>> + Send + 'a>>;

/// One interface whose functions can be steps. Its bindings have been linked before.
pub(super) struct Stepped<'a, T: 'static> {
    linker: &'a mut Linker<T>,
    interface: &'static str,
    get: Get<T>,
}

impl<'a, T: Send + 'static> Stepped<'a, T> {
    /// The interface of that name, with its version.
    pub(super) fn new(linker: &'a mut Linker<T>, interface: &'static str, get: Get<T>) -> Self {
        Stepped { linker, interface, get }
    }

    /// Links a function that never waits.
    ///
    /// # Errors
    /// When the name is none.
    pub(super) fn plain<P, R>(
        &mut self,
        name: &str,
        call: impl Fn(&mut T, P) -> wasmtime::Result<R> + Send + Sync + 'static,
    ) -> wasmtime::Result<()>
    where
        P: ComponentNamedList + Lift + 'static,
        R: ComponentNamedList + Lower + 'static,
    {
        let get = self.get;
        let function = move |mut store: StoreContextMut<'_, T>, params: P| {
            let answer = call(store.data_mut(), params);
            bill(&mut store, get)?;
            answer
        };
        self.linker.allow_shadowing(true);
        let linked = self.linker.instance(self.interface)?.func_wrap(name, function);
        self.linker.allow_shadowing(false);
        linked
    }

    /// Links a function that may wait.
    ///
    /// # Errors
    /// When the name is none.
    pub(super) fn waiting<P, R>(
        &mut self,
        name: &str,
        call: impl for<'s> Fn(&'s mut T, P) -> Later<'s, R> + Copy + Send + Sync + 'static,
    ) -> wasmtime::Result<()>
    where
        P: ComponentNamedList + Lift + Send + 'static,
        R: ComponentNamedList + Lower + Send + 'static,
    {
        let get = self.get;
        self.linker.allow_shadowing(true);
        let mut interface = self.linker.instance(self.interface)?;
        let linked = interface.func_wrap_async(name, move |mut store: StoreContextMut<'_, T>, params: P| {
            Box::new(async move {
                let answer = call(store.data_mut(), params).await;
                bill(&mut store, get)?;
                answer
            })
        });
        self.linker.allow_shadowing(false);
        linked
    }
}

/// Notes the fuel that is left when the record has just been used up: from here on it is the task's budget that burns. After a wait in place there is
/// nothing to note: what was burned before is still to be billed.
fn bill<T>(store: &mut StoreContextMut<'_, T>, get: Get<T>) -> wasmtime::Result<()> {
    let base = get(store.data_mut());
    if base.meter.take_used_up() && base.billed_from == 0 {
        let left = store.get_fuel()?;
        let base: &mut Base = get(store.data_mut());
        let left = base.budget.map_or(left, |budget| budget.min(left));
        base.billed_from = left;
        store.set_fuel(left)?;
    }
    Ok(())
}
